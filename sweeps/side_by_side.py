"""The runs that one process works on at a time: one, or several that share their text passes."""

from __future__ import annotations

import gc
from contextlib import ExitStack
from functools import partial

from dassl.utils import UserError
from dassl.utils.lockstep import Lockstep
from results.record import sigterm_raises

from .events import RunOne, RunOutcome
from .planned_run import PlannedRun

AUTO = 0  # instead of a number of runs: as many as fit in memory, up to MOST
MOST = 8
SHARE = 0.5  # of the free memory that the text of all runs may take


def parse_together(value: object) -> int:
    """The number of runs that ``--together`` or ``cluster.together`` names; AUTO for "auto".

    Raises:
        UserError: neither "auto" nor a number from 1.
    """
    if value == "auto":
        return AUTO
    if not str(value).isdigit() or int(str(value)) < 1:
        raise UserError(f"together is auto or a number of runs from 1; got {value!r}")
    return int(str(value))


class SideBySide:
    """Does runs in this process, as a context manager.

    Args:
        run_one: does one run.
        together: how many runs take turns, or AUTO. 1: each is done by itself, in this thread.
    """

    def __init__(self, run_one: RunOne, together: int):
        self.run_one, self.together = run_one, together
        self._next: PlannedRun | None = None  # if each run is done by itself
        self._lockstep: Lockstep | None = None
        self._stack = ExitStack()

    def __enter__(self) -> SideBySide:
        gc.freeze()  # what is imported stays: collecting garbage need not look at it
        if self.together != 1:
            self._stack.enter_context(sigterm_raises())  # as a run by itself does
            self._lockstep = self._stack.enter_context(Lockstep())
        return self

    def __exit__(self, *error) -> bool | None:
        return self._stack.__exit__(*error)

    @property
    def runs(self) -> list[PlannedRun]:
        """The runs that have not ended."""
        if self._lockstep is None:
            return [self._next] if self._next else []
        return [strand.name for strand in self._lockstep.strands]

    @property
    def has_room(self) -> bool:
        """Whether another run may start now; under AUTO, if one like the largest fits in memory."""
        count = len(self.runs)
        if not count or self.together != AUTO or self._lockstep is None:
            return count < max(self.together, 1)
        shares = [strand.share for strand in self._lockstep.strands]
        known = [share for share in shares if share is not None]
        return len(known) == count < MOST and sum(known) + max(known) <= SHARE

    def start(self, run: PlannedRun) -> None:
        """Add a run."""
        if self._lockstep is None:
            self._next = run
        else:
            self._lockstep.start(run, partial(self.run_one, run))

    def work(self) -> list[tuple[PlannedRun, RunOutcome]]:
        """Let the runs work up to their next text pass; those that ended, with their outcomes."""
        if self._lockstep is None:
            run, self._next = self._next, None
            return [(run, self.run_one(run))] if run else []
        ended = self._lockstep.round()
        for strand in ended:
            if strand.error is not None:  # no failure of a run: that is an outcome
                raise strand.error
        return [(strand.name, strand.result) for strand in ended]
