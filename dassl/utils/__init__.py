"""Small tools that every package uses. Their modules are imported on first use."""

from typing import TYPE_CHECKING

from .lazy import lazy_imports

if TYPE_CHECKING:
    from .checkpoint import load_checkpoint, load_pretrained_weights, save_checkpoint
    from .errors import (
        DamagedFile,
        Interrupted,
        Problems,
        UserError,
        did_you_mean,
        naming_damaged,
        nearest,
        unknown_name,
    )
    from .files import (
        atomic_path,
        cache_folder,
        check_isfile,
        listdir_nohidden,
        mkdir_if_missing,
        read_json,
        write_json,
    )
    from .logger import setup_logger
    from .memory import free_memory
    from .meters import AverageMeter, MetricMeter
    from .registry import Registry, import_all
    from .stopwatch import Stopwatch
    from .tools import choose_device, collect_env_info, count_num_param, flat, set_random_seed
    from .words import counted, shorten_list, size_in_words

__all__ = [
    "AverageMeter",
    "DamagedFile",
    "Interrupted",
    "MetricMeter",
    "Problems",
    "Registry",
    "Stopwatch",
    "UserError",
    "atomic_path",
    "cache_folder",
    "check_isfile",
    "choose_device",
    "collect_env_info",
    "count_num_param",
    "counted",
    "did_you_mean",
    "flat",
    "free_memory",
    "import_all",
    "listdir_nohidden",
    "load_checkpoint",
    "load_pretrained_weights",
    "mkdir_if_missing",
    "naming_damaged",
    "nearest",
    "read_json",
    "save_checkpoint",
    "set_random_seed",
    "setup_logger",
    "shorten_list",
    "size_in_words",
    "unknown_name",
    "write_json",
]

__getattr__, __dir__ = lazy_imports(__name__)
