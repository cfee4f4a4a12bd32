"""The folder list is the architecture: who imports whom, and how long things may be."""

import ast
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGES = ("clip", "dassl", "datasets", "image_text", "prompting", "results", "sweeps", "trainers")
PROGRAMS = ("train", "sweep", "parse_test_res", "interpret_prompt")
ALLOWED = {
    "clip": {"dassl.utils"},
    "dassl": set(),
    "image_text": {"dassl"},
    "datasets": {"image_text", "dassl"},
    "prompting": {"image_text", "clip", "dassl"},
    "trainers": {"prompting", "image_text", "clip", "dassl"},
    "results": {"dassl"},
    "sweeps": {"results", "dassl"},
}
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
    public = {
        path.stem: path for path in (ROOT / package).glob("*.py") if not path.stem.startswith("_")
    }
    assert public
    for name, path in public.items():
        used = {
            module.split(".")[1]
            for module in imports(path)
            if module.startswith(f"{package}.") and module.split(".")[1] in public
        }
        if used:
            assert package == "datasets" and "members = (" in path.read_text(), (name, used)


def test_budgets():
    files = [
        path
        for path in sources(*PACKAGES, "benchmarks") + [ROOT / f"{name}.py" for name in PROGRAMS]
        if path.is_file()
    ]
    assert len(files) > 60
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
        for path in sources(*PACKAGES, "benchmarks", "tests/reference")
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
