"""Checks the planned runs before the first one starts, so that a mistake is reported once."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from dassl.config import get_cfg_default
from dassl.engine.registry import TRAINER_REGISTRY
from dassl.utils import UserError

from .plan import PlannedRun
from .protocols import override_pairs

UNREAD = ("--output-dir", "--seed", "--model-dir", "--init-from")  # no configuration depends on it


def check_trainers(runs: Iterable[PlannedRun]) -> None:
    """Refuse unknown names of trainers; the program must have imported ``trainers``.

    Raises:
        UserError: it names the method of the sweep, and the nearest trainer.
    """
    for method, trainer in {run.method: run.argv[1] for run in runs}.items():
        try:
            TRAINER_REGISTRY.check_name(trainer)
        except UserError as error:
            raise UserError(f"method {method}: {error}") from None


def check_keys(runs: Iterable[PlannedRun]) -> None:
    """Refuse unknown keys and wrong values among the overrides, without importing torch.

    The keys below TRAINER, which the methods define, are left to :func:`check_configurations`.

    Raises:
        UserError: it names the method of the sweep, and the key.
    """
    default = get_cfg_default()

    def merge(argv: Sequence[str]) -> None:
        chosen = [pair for pair in override_pairs(argv) if not pair[0].startswith("TRAINER.")]
        default.clone().merge_from_list([word for pair in chosen for word in pair])

    check_configurations(runs, merge)


def check_configurations(
    runs: Iterable[PlannedRun], read: Callable[[Sequence[str]], object]
) -> None:
    """Read every configuration of the runs once.

    Args:
        read: reads that of train.py's arguments.

    Raises:
        UserError: one cannot be used; it names the method of the sweep, and what is wrong.
    """
    for run in {(run.method, *_read_words(run.argv)): run for run in runs}.values():
        try:
            read(run.argv)
        except UserError as error:
            raise UserError(f"method {run.method}: {error}") from None


def _read_words(argv: Sequence[str]) -> list[str]:
    """The words that a configuration is read from: runs that differ in others have equal ones."""
    skipped = {i + offset for i, word in enumerate(argv) if word in UNREAD for offset in (0, 1)}
    return [word for i, word in enumerate(argv) if i not in skipped]
