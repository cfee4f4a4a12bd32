"""The configuration: every key has a default and a range; a YAML file may extend others."""

from .defaults import get_cfg_default
from .key import Key
from .node import CfgNode
from .paths import expand_home

__all__ = ["CfgNode", "Key", "expand_home", "get_cfg_default"]
