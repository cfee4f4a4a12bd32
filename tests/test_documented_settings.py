"""The documents name every setting: configuration keys with their defaults, keys of each method."""

import ast
import re
from pathlib import Path

import pytest

import trainers  # noqa: F401 - registers the methods
from dassl.config import CfgNode, get_cfg_default
from dassl.engine import TRAINER_REGISTRY
from dassl.utils import UserError

DOCS = Path(__file__).parent.parent / "docs"


def flat(node, prefix=""):
    """The keys and values of a node and all nodes below it, as ``("OPTIM.LR", 0.002)``."""
    for key, value in node.items():
        if isinstance(value, CfgNode):
            yield from flat(value, f"{prefix}{key}.")
        else:
            yield prefix + key, value


def parsed(cell):
    """The value that a cell of a table shows."""
    try:
        return ast.literal_eval(cell)
    except (ValueError, SyntaxError):
        return cell


def test_the_page_of_the_configuration_has_every_key_with_its_default():
    page = (DOCS / "configuration.md").read_text(encoding="utf-8")
    shown = dict(re.findall(r"^\| `([A-Z_.\d]+)` \| (.*?) \|", page, re.M))
    defaults = dict(flat(get_cfg_default()))
    assert sorted(shown) == sorted(defaults)
    assert {key: parsed(cell) for key, cell in shown.items()} == defaults


def test_the_page_of_the_configuration_has_every_choice():
    page = (DOCS / "configuration.md").read_text(encoding="utf-8")
    rows = dict(re.findall(r"^\| `([A-Z_.\d]+)` \| (.*) \|$", page, re.M))
    missing = {key: [c for c in choices(key) if c not in rows[key]] for key in rows}
    assert not {key: names for key, names in missing.items() if names}


def choices(key):
    """The words that a key takes, by the message that refuses another one; [] if it takes any."""
    try:
        get_cfg_default().merge_from_list([key, "no such choice"])
    except UserError as error:
        words = re.search(r" takes one of (.*?)(?: or a number)?;", str(error))
        return words[1].replace("''", "").split(", ") if words else []
    return []


@pytest.mark.parametrize("name", TRAINER_REGISTRY.registered_names())
def test_the_pages_of_methods_have_every_key_of_a_trainer(name):
    method = TRAINER_REGISTRY.get(name)
    pages = [path.read_text(encoding="utf-8") for path in (DOCS / "methods").glob("*.md")]
    text = "".join(page for page in pages if re.search(rf"^Trainers? [^.;]*`{name}`", page, re.M))
    assert not [key for key in method.DEFAULTS if f"`{key}`" not in text]
