"""A folder with the files of a small grid, and a stand-in for train.py."""

import sys
import types

import pytest

from dassl.engine.configuration import build_cfg
from dassl.utils import write_json
from sweeps import check
from sweeps import run as sweep_run
from sweeps.planned_run import override_pairs
from tests._records import record


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A working directory with the files that the grid names."""
    (tmp_path / "configs" / "datasets").mkdir(parents=True)
    for name in ("datasets/trees", "datasets/birds", "zs", "coop"):
        (tmp_path / "configs" / f"{name}.yaml").write_text("")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def train(monkeypatch):
    """A stand-in for train.py that writes records; ``fails`` maps output folders to errors."""
    stub = types.ModuleType("train")
    stub.seen, stub.read, stub.fails = [], [], {}

    def parse_args(argv):
        words = dict(zip(argv[::2], argv[1::2], strict=False))
        return types.SimpleNamespace(argv=argv, folder=words["--output-dir"])

    def main(args):
        stub.seen.append(args.argv)
        if args.folder in stub.fails:
            raise stub.fails[args.folder]
        method = args.argv[1]
        values = {"zs": 50.0, "coop": 60.0}[args.argv[3].split("/")[-1].removesuffix(".yaml")]
        content = record(
            method=method,
            seed=int(args.argv[args.argv.index("--seed") + 1]),
            shots=int(args.argv[args.argv.index("DATASET.NUM_SHOTS") + 1]),
            tasks=(("oak", "", values), ("elm", "", values + 10)),
        )
        write_json(content, f"{args.folder}/results.json")
        return content

    def setup_cfg(args):
        stub.read.append(args.argv)
        words = [word for pair in override_pairs(args.argv) for word in pair]
        return build_cfg([], ["TRAINER.NAME", args.argv[1], "SEED", 1, *words])

    stub.parse_args, stub.main = parse_args, main
    monkeypatch.setattr(check, "parse_args", parse_args)
    monkeypatch.setattr(check, "setup_cfg", setup_cfg)
    monkeypatch.setitem(sys.modules, "train", stub)
    monkeypatch.setattr(sweep_run.gc, "collect", lambda: 0)  # takes its time, and nothing is held
    return stub
