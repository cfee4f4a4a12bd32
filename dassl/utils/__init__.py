"""Small things that everything uses."""

from .checkpoint import load_checkpoint, load_pretrained_weights, save_checkpoint
from .errors import UserError, nearest, unknown_name
from .logger import setup_logger
from .memory import free_memory
from .meters import AverageMeter, MetricMeter
from .registry import Registry, import_all
from .stopwatch import Stopwatch
from .tools import (
    atomic_path,
    check_isfile,
    collect_env_info,
    count_num_param,
    flat,
    listdir_nohidden,
    mkdir_if_missing,
    read_json,
    set_random_seed,
    write_json,
)

__all__ = [
    "AverageMeter",
    "MetricMeter",
    "Registry",
    "Stopwatch",
    "UserError",
    "atomic_path",
    "check_isfile",
    "collect_env_info",
    "count_num_param",
    "flat",
    "free_memory",
    "import_all",
    "listdir_nohidden",
    "load_checkpoint",
    "load_pretrained_weights",
    "mkdir_if_missing",
    "nearest",
    "read_json",
    "save_checkpoint",
    "set_random_seed",
    "setup_logger",
    "unknown_name",
    "write_json",
]
