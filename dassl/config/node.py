"""A yacs node with inheritance between YAML files and errors that say what to do."""

from __future__ import annotations

import math
import sys
from pathlib import Path
from typing import Any

import yaml
from yacs.config import CfgNode as _CfgNode

from dassl.utils.errors import UserError, unknown_name
from dassl.utils.files import neighbours

from .key import Key

KINDS = {
    bool: "True or False",
    int: "a whole number",
    float: "a number",
    str: "text",
    tuple: "a list",
    list: "a list",
}
MEANT = {  # keys of this project by common names of other ones
    "LEARNING_RATE": "LR",
    "EPOCHS": "MAX_EPOCH",
    "NUM_EPOCHS": "MAX_EPOCH",
    "OPTIMIZER": "NAME",
    "SCHEDULER": "LR_SCHEDULER",
    "WD": "WEIGHT_DECAY",
    "SHOTS": "NUM_SHOTS",
}
LARGEST = int(sys.float_info.max)  # of the whole numbers that a float can hold
SPECS = "__key_specs__"  # attribute of a node: the Key of each entry that has one


class CfgNode(_CfgNode):
    """A yacs node with inheritance between YAML files, ranges of values, and clear errors.

    Keys can be changed but not invented. A value has the type of its default; an integer is
    accepted for a float, a list for a tuple, and None (yacs's way to unset) for an empty string.
    Merging refuses values outside the range of their :class:`Key`, and infinite numbers.

    Args:
        init_dict: values by key; a :class:`Key` is a default with a range.
    """

    def __init__(self, init_dict: dict | None = None, key_list=None, new_allowed: bool = False):
        values = dict(init_dict or {})
        specs = dict(_specs(init_dict)) | {k: v for k, v in values.items() if isinstance(v, Key)}
        values |= {k: v.default for k, v in values.items() if isinstance(v, Key)}
        super().__init__(values, key_list, new_allowed)
        self.__dict__[SPECS] = specs

    def merge_from_file(self, cfg_filename: str | Path) -> None:
        """Merge a YAML file; its ``_BASE_`` (one path or a list, relative to it) comes first."""
        self._merge_file(Path(cfg_filename).expanduser(), seen=())

    def _merge_file(self, path: Path, seen: tuple[Path, ...]) -> None:
        if path.resolve() in seen:
            raise UserError(f"{path}: _BASE_ includes the file itself")
        content = read_yaml(path)
        bases = content.pop("_BASE_", [])
        bases = bases if isinstance(bases, list) else [bases]
        if strange := [base for base in bases if not isinstance(base, str)]:
            raise UserError(f"{path}: _BASE_ takes a path or a list of paths; got {strange[0]!r}")
        for base in bases:
            self._merge_file(path.parent / Path(base).expanduser(), (*seen, path.resolve()))
        self.merge_from_dict(content, where=f"{path}: ")

    def merge_from_list(self, cfg_list: list) -> None:
        """Merge ``[KEY, VALUE, KEY, VALUE, ...]``, as on the command line."""
        if len(cfg_list) % 2:
            raise UserError(
                f"overrides come in pairs KEY VALUE, but {cfg_list[-1]!r} has no value in "
                f"{' '.join(map(str, cfg_list))!r}"
            )
        for key, value in zip(cfg_list[::2], cfg_list[1::2], strict=True):
            nested: Any = value  # a string until the type of the default is known
            for part in reversed(str(key).split(".")):
                nested = {part: nested}
            self.merge_from_dict(nested)

    def merge_from_other_cfg(self, cfg_other: _CfgNode) -> None:
        """Merge another node."""
        self.merge_from_dict(cfg_other)

    def merge_from_dict(self, values: dict, where: str = "") -> None:
        """Merge nested plain values; errors start with ``where`` and name the whole key."""
        if self.is_frozen():
            raise AttributeError("the configuration is frozen; call defrost() first")
        _merge(self, values, (), where)

    def clone(self) -> CfgNode:
        """A copy that can be changed by itself."""
        copy = type(self).__new__(type(self))
        copy.__dict__.update({k: _copied(v) for k, v in self.__dict__.items()})
        for key, value in self.items():
            dict.__setitem__(copy, key, _copied(value))
        return copy

    def with_values(self, values: dict[str, Any]) -> CfgNode:
        """A copy with other values of some keys (``"INPUT.SIZE"``), which are not checked."""
        copy, frozen = self.clone(), self.is_frozen()
        copy.defrost()
        for key, value in values.items():
            node, name = copy.find(key)
            node[name] = value
        if frozen:
            copy.freeze()
        return copy

    def find(self, key: str) -> tuple[CfgNode, str]:
        """The node of a key such as ``"INPUT.SIZE"``, and the key's name in it."""
        *parents, name = key.split(".")
        node = self
        for parent in parents:
            node = node[parent]
        return node, name

    def check(self, name: str = "") -> None:
        """Refuse values out of range, also those set by attribute; ``name`` is the node's own key.

        Raises:
            UserError: it names the key, the allowed values and the value.
        """
        for key, value in self.items():
            full = f"{name}.{key}" if name else key
            if isinstance(value, CfgNode):
                value.check(full)
            elif not isinstance(value, _CfgNode):
                _spec(self, key).check(value, full)

    def to_dict(self) -> dict:
        """Plain nested dicts, lists and scalars, for YAML and JSON."""
        return {k: v.to_dict() if isinstance(v, CfgNode) else _plain(v) for k, v in self.items()}


class _Loader(yaml.SafeLoader):
    """Refuses a key that is given twice; YAML alone would silently use the last value."""

    def compose_mapping_node(self, anchor: str | None) -> yaml.MappingNode:
        node = super().compose_mapping_node(anchor)
        seen = set()
        for key, _ in node.value:
            name = key.tag, key.value if isinstance(key, yaml.ScalarNode) else id(key)
            if name in seen:
                problem = f"the key {key.value} is given twice in one mapping"
                raise yaml.MarkedYAMLError(problem=problem, problem_mark=key.start_mark)
            seen.add(name)
        return node


def read_yaml(path: Path) -> dict:
    """The mapping in a YAML file; {} if it is empty."""
    try:
        content = yaml.load(path.read_text(encoding="utf-8"), Loader=_Loader)
    except FileNotFoundError:
        beside = neighbours(path, "*.yaml")
        raise UserError(f"there is no configuration file {path}{beside}") from None
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"cannot read the configuration file {path}: {error}") from None
    except Exception as error:  # PyYAML raises nearly anything about a value such as 2020-13-45
        raise UserError(f"{path} is not valid YAML: {' '.join(str(error).split())}") from None
    if content is None:
        return {}
    if not isinstance(content, dict):
        raise UserError(f"{path} must hold keys and values, but holds a {type(content).__name__}")
    return content


def _merge(node: CfgNode, values: dict, path: tuple[str, ...], where: str) -> None:
    for key, value in values.items():
        full = ".".join((*path, str(key)))
        if key not in node:
            meant = ".".join((*path, MEANT[key])) if MEANT.get(key) in node else ""
            known = _all_keys(node, path)
            raise UserError(f"{where}{unknown_name('config key', full, known, meant)}")
        old = node[key]
        if isinstance(old, _CfgNode):
            if not isinstance(value, dict):
                raise UserError(f"{where}{full} holds the keys {', '.join(old)}; got {value!r}")
            _merge(old, value, (*path, str(key)), where)
        else:
            value = _coerce(value, old, _spec(node, key), where + full)
            _spec(node, key).check(value, where + full)
            node[key] = value


def _copied(value: Any) -> Any:
    """A copy of what can be changed in place; much faster than ``copy.deepcopy``."""
    if isinstance(value, _CfgNode):
        return value.clone()
    return type(value)(value) if isinstance(value, dict | list | set) else value


def _specs(node: dict | None) -> dict[str, Key]:
    return node.__dict__.get(SPECS, {}) if isinstance(node, _CfgNode) else {}


def _spec(node: CfgNode, key: str) -> Key:
    return _specs(node).get(key) or Key(node[key])


def _coerce(value: Any, old: Any, spec: Key, where: str) -> Any:
    """``value`` in the type of the default, or in another that the key accepts.

    Raises:
        UserError: it has another type.
    """
    default = spec.default if spec.also else old
    if isinstance(default, str):
        if value is None or value == "None":  # yacs reads both as None
            return ""
        if isinstance(value, (int, float)) and not isinstance(value, bool):
            return str(value)  # a name that looks like a number
    elif isinstance(value, str):
        value = CfgNode._decode_cfg_value(value)
    if isinstance(default, (tuple, list)) and isinstance(value, (tuple, list)):
        return type(default)(value)
    if isinstance(default, float) and isinstance(value, int) and not isinstance(value, bool):
        return float(value) if abs(value) <= LARGEST else math.inf
    if type(value) in (type(default), *spec.also):
        return value
    example = f" such as {default!r}" if default and not isinstance(default, bool) else ""
    raise UserError(f"{where} takes {KINDS[type(default)]}{example}; got {value!r}")


def _all_keys(node: CfgNode, path: tuple[str, ...]) -> list[str]:
    return [".".join((*path, key)) for key in node]


def _plain(value: Any) -> Any:
    if isinstance(value, (tuple, list)):
        return [_plain(v) for v in value]
    return value
