"""The wheel holds everything under the one import name softcpt."""

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from tests.test_layout import PACKAGES, PROGRAMS

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "scripts"))
backend = pytest.importorskip("wheel_backend", reason="setuptools is not installed")
sys.path.remove(str(ROOT / "scripts"))

CHECK = """
import sys
import softcpt
run = softcpt.train_run(
    "run", trainer="MTCoOp", backbone="tiny/random", quiet=True,
    dataset_config_file=softcpt.command.find_config("configs/datasets/digits7.yaml"),
    overrides={
        "DATASET.NUM_SHOTS": 1, "DATASET.SUBSAMPLE_TASKS": "task1", "OPTIM.MAX_EPOCH": 1,
        "DATALOADER.NUM_WORKERS": 0,
    },
)
assert run.record["status"] == "complete" and len(run.tasks) == 1
strange = {name.split(".")[0] for name in sys.modules} & %r
assert not strange, strange
"""


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """A folder into which the wheel is unpacked."""
    pytest.importorskip("setuptools", "77")
    built, folder = tmp_path_factory.mktemp("wheel"), tmp_path_factory.mktemp("site")
    words = ("wheel", str(ROOT), "--no-deps", "--no-build-isolation", "--quiet", "-w", str(built))
    done = subprocess.run([sys.executable, "-m", "pip", *words], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    with zipfile.ZipFile(next(built.glob("*.whl"))) as wheel:
        wheel.extractall(folder)
    return folder


def python(site, *words, cwd):
    """Run Python with a folder of installed packages, and without this repository."""
    environment = {**os.environ, "PYTHONPATH": str(site), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-P", *words]
    return subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True)


def test_the_backend_knows_every_folder_and_program():
    assert {*backend.ROOMS, "softcpt"} == {*PACKAGES}
    assert {*backend.PROGRAMS} == {*PROGRAMS}
    modules = {path.stem for path in (ROOT / "softcpt").glob("*.py")}
    assert not modules & {*backend.ROOMS, *backend.PROGRAMS, "configs"}


def test_only_imports_of_the_repository_are_rewritten():
    source = (
        "import clip\nfrom clip.text import Prompts\n    import datasets  # noqa\nimport train\n"
        "from datasets import __main__ as data\nimport clipper\nfrom .clip import x\nclip = 1\n"
    )
    assert backend.rewrite(source) == (
        "from softcpt import clip\nfrom softcpt.clip.text import Prompts\n"
        "    from softcpt import datasets  # noqa\nfrom softcpt import train\n"
        "from softcpt.datasets import __main__ as data\nimport clipper\nfrom .clip import x\n"
        "clip = 1\n"
    )


@pytest.mark.slow
def test_training_from_the_wheel(installed, tmp_path):
    """No other name is imported, so that nothing else that is installed can be hidden."""
    top = {path.name for path in installed.iterdir() if not path.name.endswith(".dist-info")}
    assert top == {"softcpt"}
    names = {*backend.ROOMS, *backend.PROGRAMS}
    done = python(installed, "-c", CHECK % names, cwd=tmp_path)
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
def test_the_command(installed, tmp_path):
    run = ("-m", "softcpt.command")
    sweep = python(installed, *run, "sweep", "configs/sweeps/demo.yaml", "--dry-run", cwd=tmp_path)
    assert sweep.returncode == 0 and "MTCoOp" in sweep.stdout, sweep.stderr
    assert "predict" in python(installed, *run, "--help", cwd=tmp_path).stdout
    wrong = python(installed, *run, "trian", cwd=tmp_path)
    assert wrong.returncode == 2 and "did you mean train?" in wrong.stderr
