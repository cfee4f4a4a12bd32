"""Checks the planned runs before the first one starts, so that a mistake is reported once."""

from __future__ import annotations

from collections.abc import Iterable

from dassl.engine.registry import TRAINER_REGISTRY
from dassl.utils import UserError

from .plan import PlannedRun


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
