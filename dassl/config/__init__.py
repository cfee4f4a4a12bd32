"""The configuration: every key has a default, and a YAML may start from another with ``_BASE_``."""

from .defaults import get_cfg_default
from .limits import check_limits
from .node import CfgNode

__all__ = ["CfgNode", "check_limits", "get_cfg_default"]
