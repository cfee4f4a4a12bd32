"""The folder list is the architecture: who imports whom, and how long things may be."""

import ast
import subprocess
import sys
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGES = (
    *("clip", "dassl", "datasets", "image_text", "prompting", "results", "softcpt", "sweeps"),
    "trainers",
)
PROGRAMS = ("train", "predict", "export", "sweep", "parse_test_res", "interpret_prompt")
ALLOWED = {
    "clip": {"dassl.utils"},
    "dassl": set(),
    "image_text": {"dassl"},
    "datasets": {"image_text", "dassl"},
    "prompting": {"image_text", "clip", "dassl"},
    "trainers": {"prompting", "image_text", "clip", "dassl"},
    "results": {"dassl"},
    "sweeps": {"results", "dassl"},
    "softcpt": {*PACKAGES, *PROGRAMS},  # the command softcpt starts every program
}
FIELD_NAMES = {"clip", "dassl", "datasets"}  # CoOp's own names; this repository comes first
LONGEST_FILE, LONGEST_FUNCTION = 300, 50


def sources(*folders):
    return sorted(path for folder in folders for path in (ROOT / folder).rglob("*.py"))


def parse(path):
    return ast.parse(path.read_text(encoding="utf-8"))


def imports(path):
    """Whole names of the modules that a file imports, relative ones resolved."""
    package = path.relative_to(ROOT).with_suffix("").parts[:-1]
    for node in ast.walk(parse(path)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            start = package[: len(package) - node.level + 1] if node.level else ()
            module = ".".join([*start, *filter(None, [node.module])])
            yield from (f"{module}.{alias.name}" for alias in node.names)


@pytest.mark.parametrize("package", PACKAGES)
def test_imports_go_one_way(package):
    files = sources(package)
    assert len(files) >= 5
    siblings = {*PACKAGES, *PROGRAMS, "benchmarks", "tests"} - {package}
    wrong = [
        f"{path.relative_to(ROOT)} imports {name}"
        for path in files
        for name in imports(path)
        if name.split(".")[0] in siblings
        and not any(f"{name}.".startswith(f"{allowed}.") for allowed in ALLOWED[package])
    ]
    assert not wrong


def test_the_references_import_torch_only():
    files = sources("tests/reference")
    assert files
    allowed = {"__future__", "math", "torch", "collections", "itertools", "random"}
    wrong = [
        f"{path.name} imports {name}"
        for path in files
        for name in imports(path)
        if name.split(".")[0] not in allowed and not name.startswith("tests.reference")
    ]
    assert not wrong


@pytest.mark.parametrize("package", ["trainers", "datasets"])
def test_public_modules_stand_alone(package):
    """A method never imports another method; a suite may import its members, and nothing else."""
    public = {name: files for name, files in modules(package).items() if name[0] != "_"}
    assert len(public) > 10
    for name, files in public.items():
        used = {
            module.split(".")[1]
            for path in files
            for module in imports(path)
            if module.startswith(f"{package}.") and module.split(".")[1] in public.keys() - {name}
        }
        if used:
            is_suite = any("members = (" in path.read_text(encoding="utf-8") for path in files)
            assert package == "datasets" and is_suite, (name, used)


def modules(package):
    """The files of each module of a package: one, or a folder of them."""
    found = {}
    for path in sources(package):
        parts = path.relative_to(ROOT / package).with_suffix("").parts
        found.setdefault(parts[0], []).append(path)
    return found


def test_no_room_shadows_an_installed_package():
    """A notebook that runs in the repository finds its folders before site-packages."""
    rooms = {*PACKAGES, *PROGRAMS} - FIELD_NAMES - {"softcpt"}  # which may be installed itself
    assert not rooms & packages_distributions().keys()
    assert not (rooms | FIELD_NAMES) & sys.stdlib_module_names


def test_transformers_in_the_repository():
    """Its look for Hugging Face's ``datasets`` meets ours."""
    pytest.importorskip("transformers", reason="transformers is not installed")
    command = "from transformers import AutoTokenizer, GPT2LMHeadModel; import datasets"
    done = subprocess.run(
        [sys.executable, "-c", command], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def test_budgets():
    files = sources(*PACKAGES, "benchmarks", "docs") + [ROOT / f"{name}.py" for name in PROGRAMS]
    assert len(files) > 150
    too_long = []
    for path in files:
        if (lines := len(path.read_text(encoding="utf-8").splitlines())) > LONGEST_FILE:
            too_long.append(f"{path.relative_to(ROOT)}: {lines} lines")
        for node in ast.walk(parse(path)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                length = node.end_lineno - node.lineno + 1
                if length > LONGEST_FUNCTION:
                    where = f"{path.relative_to(ROOT)}:{node.lineno}"
                    too_long.append(f"{where}: {node.name} has {length} lines")
    assert not too_long


def test_every_module_says_what_it_is():
    silent = [
        str(path.relative_to(ROOT))
        for path in sources(*PACKAGES, "benchmarks", "docs", "tests/reference")
        if not ast.get_docstring(parse(path)) and path.read_text().strip()
    ]
    assert not silent


def test_nothing_that_is_made_is_tracked():
    """Weights, images of a dataset and outputs are made or fetched, never shipped."""
    listing = subprocess.run(
        ["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    if listing.returncode:
        pytest.skip("not a git checkout")
    files = [ROOT / name for name in listing.stdout.split("\0") if name]
    big = [path.name for path in files if path.is_file() and path.stat().st_size > 1 << 20]
    assert files and not big
