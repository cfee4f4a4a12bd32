"""A small grid and a sweep over it, for the tests of sweep.py."""

import yaml

import sweep

GRID = {
    "output": "out",
    "datasets": ["trees"],
    "shots": [1, 4],
    "seeds": [1, 2],
    "methods": {
        "zero-shot": {"trainer": "ZeroshotCLIP", "config": "configs/zs.yaml", "once": True},
        "CoOp": {"trainer": "CoOp", "config": "configs/coop.yaml", "opts": {"INPUT.SIZE": [1, 2]}},
    },
    "overrides": {"OPTIM.MAX_EPOCH": 5},
    "report": {"table": "table.md", "figure": "figure.png"},
}


def run(capsys, *argv, **changes):
    """Exit code, lines of stdout, stderr of a sweep over the grid with some keys changed."""
    with open("grid.yaml", "w") as file:
        yaml.safe_dump({**GRID, **changes}, file, sort_keys=False)
    code = sweep.command(["grid.yaml", *argv])
    out, err = capsys.readouterr()
    return code, out.splitlines(), err
