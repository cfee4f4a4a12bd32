"""The configuration: every key has a default and a range; a YAML file may extend others."""

from .defaults import get_cfg_default
from .key import Key
from .node import CfgNode

__all__ = ["CfgNode", "Key", "get_cfg_default"]
