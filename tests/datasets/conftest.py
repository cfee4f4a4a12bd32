"""A data folder for the datasets of folders.py, and a cache folder of its own."""

import sys

import pytest

from dassl.config import get_cfg_default
from datasets import __main__ as tool
from tests.datasets.folders import fill


@pytest.fixture
def cache(tmp_path, user_cache):
    return tmp_path / "cache" / "softcpt"


@pytest.fixture
def root(tmp_path, cache):
    root = tmp_path / "data"
    fill(root / "pets" / "images", {"dog": 10, "Kitty": 20, "owl": 13, "BACKGROUND": 9})
    (root / "pets" / "images" / "dog" / ".hidden").touch()
    (root / "pets" / "images" / "readme.txt").touch()
    fill(root / "plants" / "raw" / "all", {"elm": 8, "fir": 9})
    return root


@pytest.fixture
def cfg(root):
    cfg = get_cfg_default()
    cfg.DATASET.ROOT, cfg.SEED = str(root), 1
    return cfg


@pytest.fixture
def check(monkeypatch, capsys):
    """Runs ``python -m datasets check``: the exit code and what it printed."""

    def run(name, root, *options):
        argv = ["datasets", "check", name, "--root", str(root), *options]
        monkeypatch.setattr(sys, "argv", argv)
        capsys.readouterr()
        return tool.command(), capsys.readouterr().out

    return run


@pytest.fixture
def user_cache(tmp_path, monkeypatch):
    """A cache folder of the test's own, for itself and the processes it starts."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture
def bolts(tmp_path):
    fill(tmp_path / "my_bolts", {"hex": 10, "eye_bolt": 6, "carriage": 4})
    return tmp_path / "my_bolts"
