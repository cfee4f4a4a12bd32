"""The configuration: every key has a default, and a YAML may start from another with ``_BASE_``."""

from .defaults import get_cfg_default
from .node import CfgNode

__all__ = ["CfgNode", "get_cfg_default"]
