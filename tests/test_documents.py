"""The documents agree with the tree: the map, the paths they name, their links, the site."""

import re
import subprocess
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parent.parent
DOCUMENTS = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")])
INVENTED = re.compile(
    r"\bmine\b|_mine\b|task_?shift", re.I
)  # the reader's own files in worked examples


def tracked():
    listing = subprocess.run(
        ["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    if listing.returncode:
        pytest.skip("not a git checkout")
    return listing.stdout.splitlines()


def rooms():
    """Top-level folders, as ``name/``, and programs, as ``name.py``."""
    paths = [Path(name) for name in tracked() if not name.startswith(".")]
    folders = {f"{path.parts[0]}/" for path in paths if len(path.parts) > 1}
    return folders | {path.name for path in paths if len(path.parts) == 1 and path.suffix == ".py"}


def read(path):
    return path.read_text(encoding="utf-8")


def test_the_map_is_the_tree():
    section = (
        read(ROOT / "docs/architecture.md").split("\n## Where things are\n")[1].split("\n## ")[0]
    )
    rows = re.findall(r"^\| `([^`]+)` \|", section, re.M)
    assert len(rows) == len(set(rows))
    assert set(rows) == rooms()


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_named_paths_exist(document):
    """A path in backticks that begins with a top-level folder is a file or folder here."""
    heads = {room.rstrip("/") for room in rooms() if room.endswith("/")}
    words = re.findall(r"`([\w./-]+)`", read(document))
    named = {w for w in words if "/" in w and w.split("/")[0] in heads}
    named = {name for name in named if not INVENTED.search(name)}
    missing = [name for name in sorted(named) if not (ROOT / name).exists()]
    assert not missing


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_links_between_documents(document):
    broken = []
    for target in re.findall(r"\]\(([^)]+)\)", read(document)):
        if "://" in target:
            continue
        name, _, anchor = target.partition("#")
        path = document.parent / name if name else document
        if not path.exists() or (anchor and anchor not in anchors(path)):
            broken.append(target)
    assert not broken


def test_every_page_is_in_the_menu_of_the_site():
    menu = yaml.safe_load(read(ROOT / "mkdocs.yml"))["nav"]
    pages = [str(path.relative_to(ROOT / "docs")) for path in (ROOT / "docs").rglob("*.md")]
    listed = entries(menu)
    assert len(listed) == len(set(listed))
    assert set(pages) - set(listed) == set(), "not in nav of mkdocs.yml"
    assert set(listed) - set(pages) == set(), "in nav of mkdocs.yml without a file"


def entries(menu):
    """The pages that a part of the menu lists."""
    if isinstance(menu, str):
        return [menu]
    return [
        page
        for item in (menu.values() if isinstance(menu, dict) else menu)
        for page in entries(item)
    ]


def anchors(path):
    """The anchors that GitHub gives to the headings of a document."""
    heads = re.findall(r"^#+ (.+)$", read(path), re.M)
    return {re.sub(r"[^\w\- ]", "", head.lower()).replace(" ", "-") for head in heads}


def test_lower_bounds_are_the_oldest_versions_tested():
    pins = re.findall(r"^([\w-]+)==([\w.]+)$", read(ROOT / "requirements-oldest.txt"), re.M)
    bounds = dict(re.findall(r"^([\w-]+)>=([\w.]+)", read(ROOT / "requirements.txt"), re.M))
    unused = {"ruff", "mypy", "types-PyYAML"}  # of `make lint`, which needs the newest versions
    assert dict(pins) == {k: version for k, version in bounds.items() if k not in unused}
