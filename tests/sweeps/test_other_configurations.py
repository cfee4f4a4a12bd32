"""sweep.py over folders whose runs are of another configuration than the YAML's."""

import pytest
import yaml

from dassl.engine.configuration import build_cfg
from dassl.utils import UserError
from results.record import OtherRun, hashed_config
from tests._records import write
from tests._sweeps import run

METHODS = {
    name: {"trainer": "CoOp", "config": "configs/coop.yaml"} for name in ("CoOp", "CoOp again")
}
GRID = {"methods": METHODS, "shots": [4], "seeds": [1, 2]}


@pytest.fixture
def finished(place, train, capsys):
    """A sweep with the rate 0.1, complete, with the configurations of its runs."""
    for method in ("CoOp", "CoOp-again"):
        for seed in GRID["seeds"]:
            folder = write(place / f"out/{method}/trees_4shots/seed{seed}", seed=seed)
            words = ["TRAINER.NAME", "CoOp", "SEED", seed, "DATASET.NUM_SHOTS", 4]
            cfg = build_cfg([], [*words, "OPTIM.MAX_EPOCH", 5, "OPTIM.LR", 0.1])
            (folder / "config.yaml").write_text(yaml.safe_dump(hashed_config(cfg)))
    assert run(capsys, "OPTIM.LR", "0.1", **GRID)[0] == 0
    train.seen.clear()
    return place / "out"


def test_their_numbers_are_in_no_table(finished, train, capsys):
    """Neither those of the selected runs nor those of the others that the report covers."""
    (finished / "CoOp/trees_4shots/seed1/config.yaml").unlink()  # it counts as of this YAML
    code, lines, _ = run(capsys, "--only", "method=CoOp", "OPTIM.LR", "0.2", **GRID)
    assert code == 1 and len(train.seen) == 1
    rows = [line.split()[:4] for line in lines if line.startswith("CoOp")]
    assert ["CoOp", "4", "1", "of"] in rows and ["CoOp", "again", "4", "0"] in rows, lines
    not_counted = [line for line in lines if line.endswith("seed1: of another configuration")]
    not_counted += [line for line in lines if line.endswith("seed2: of another configuration")]
    assert len(not_counted) == 3, lines
    assert not any("failed" in line for line in lines)


def test_they_do_not_replace_a_table_when_nothing_was_trained(finished, train, capsys):
    files = [finished / name for name in ("table.md", "figure.png")]
    before = [file.read_bytes() for file in files]
    (finished / "CoOp/trees_4shots/seed1/config.yaml").unlink()
    code, lines, _ = run(capsys, "OPTIM.LR", "0.2", **GRID)
    assert code == 1 and [file.read_bytes() for file in files] == before
    assert any(line.startswith("not replaced: out/table.md and out/figure.png") for line in lines)
    assert "3 runs" in lines[-1] and "OPTIM.LR was 0.1, now 0.2" in lines[-1]
    (finished / "CoOp-again/trees_4shots/seed1/results.json").unlink()
    (finished / "CoOp-again/trees_4shots/seed1/config.yaml").unlink()
    run(capsys, "OPTIM.LR", "0.2", **GRID)  # one run is trained: the table is of this YAML
    assert files[0].read_bytes() != before[0]


def test_complete_runs_need_no_data(finished, train, capsys):
    """They are reported without it, and one line says that the data was not compared."""
    (finished / "table.md").unlink()
    folders = [
        f"out/{name}/trees_4shots/seed{n}" for name in ("CoOp", "CoOp-again") for n in (1, 2)
    ]
    train.fails = {folder: UserError("Trees: there is no folder") for folder in folders}
    train.fails[folders[0]] = OtherRun("on other data")  # this one was compared
    code, lines, _ = run(capsys, "OPTIM.LR", "0.1", **GRID)
    assert code == 1 and (finished / "table.md").exists()
    assert sum("there is no folder" in line for line in lines) == 1
    assert any(line.startswith("3 complete runs") for line in lines), lines
    failed = [line for line in lines if line.startswith("failed: ")]
    assert len(failed) == 1 and "on other data" in failed[0]


def test_the_status_counts_many_runs_of_a_method_in_one_line(finished, train, capsys):
    grid = {**GRID, "seeds": [1, 2, 3, 4, 5, 6]}
    _, lines, _ = run(capsys, "--status", "OPTIM.LR", "0.2", **grid)
    assert lines[2] == "CoOp: 4 of 6 runs not started" and len(lines) == 7
    assert "seed 2: of another configuration: OPTIM.LR was 0.1, now 0.2" in lines[1]


def test_equal_failures_of_a_method_have_one_line(place, train, capsys):
    error = ValueError("no such thing")
    train.fails = {f"out/CoOp/trees_{n}shots/seed{seed}": error for n in (1, 4) for seed in (1, 2)}
    _, lines, _ = run(capsys)
    failed = [line for line in lines if line.startswith("failed: ")]
    assert len(failed) == 1 and "4 runs of CoOp" in failed[0] and "no such thing" in failed[0]
    progress = [line for line in lines if line.startswith("[") and "failed: " in line]
    assert len(progress) == 4 and sum("no such thing" in line for line in progress) == 1
    assert "failed: like CoOp, trees, 1 shot, seed 1; " in progress[-1]
