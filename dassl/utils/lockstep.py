"""Several functions that take turns in threads, so that parts of their work are done in one call.

One function works at a time, until it hands in a request (:func:`hand_in`) or ends. When all are
waiting, requests of one kind are served together. Each function has what code takes for global to
itself: stdout and the random generators of Python, NumPy and torch.
"""

from __future__ import annotations

import random
import sys
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Hashable, Sequence
from queue import SimpleQueue
from typing import Any

_here = threading.local()


class Request(ABC):
    """Work that can be done in one call with that of other requests of the same kind.

    Attributes:
        kind: requests of equal kinds are served together.
        rank: of several kinds, the one of the highest rank is served first.
    """

    kind: Hashable
    rank: tuple[int, ...] = ()
    error: Exception | None = None

    @abstractmethod
    def serve(self, requests: Sequence[Request]) -> None:
        """Do the work of all requests; this one is the first of them."""


class _Globals:
    """The state of the global random generators and stdout while others use them."""

    def __init__(self) -> None:
        import numpy as np  # imported late, as programs that only ask for the time need neither

        self.numpy = np.random.MT19937()
        self.numpy.state = np.random.get_state(legacy=False)
        self.save()

    def save(self) -> None:
        """Take over the present state; NumPy's needs no copy, since the generator is exchanged."""
        import torch

        self.stdout, self.python, self.torch = sys.stdout, random.getstate(), torch.get_rng_state()
        self.cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else []

    def load(self) -> None:
        """Make it the present state."""
        import numpy as np
        import torch

        sys.stdout = self.stdout
        random.setstate(self.python)
        torch.set_rng_state(self.torch)
        np.random.set_bit_generator(self.numpy)
        if self.cuda:
            torch.cuda.set_rng_state_all(self.cuda)


class Strand:
    """One of the functions, in a thread of its own.

    Attributes:
        name: what it works on.
        share: the part of the free memory that its work takes; None until :func:`report_share`.
        result: what the function returned.
        error: what it raised.
    """

    def __init__(self, name: Any, function: Callable[[], Any]):
        self.name = name
        self.result: Any = None
        self.share: float | None = None
        self.error: BaseException | None = None
        self.ended = self.working = False
        self.request: Request | None = None
        self.group: list[Strand] = []  # whose requests it serves in its next turn
        self.idle = 0.0  # seconds in which others worked
        self.globals = _Globals()
        self._function = function
        self._go: SimpleQueue[BaseException | None] = SimpleQueue()
        self._back: SimpleQueue[None] = SimpleQueue()
        self._paused = time.perf_counter()
        self._thread = threading.Thread(target=self._run, daemon=True, name=f"strand {name}")
        self._thread.start()

    def begin_turn(self, stop: BaseException | None) -> None:
        """Let it work; with ``stop``, that is raised where it waits."""
        self.working = True
        self.idle += time.perf_counter() - self._paused
        self._go.put(stop)

    def end_turn(self) -> None:
        """Wait until it hands in a request or ends; again, if a signal has cut that off."""
        while self.working:
            self._back.get()

    def _run(self) -> None:
        import torch

        _here.strand = self
        torch.autograd.set_multithreading_enabled(False)  # backward passes stay in this thread
        try:
            self._await_turn()
            self.result = self._function()
        except BaseException as error:
            self.error = error
        self.ended = True
        self._pass_on()

    def pause(self, request: Request) -> None:
        """Hand in a request and return when it is served, perhaps by this thread."""
        self.request = request
        self._pass_on()
        self._await_turn()
        if self.group:
            self._serve()
        self.request = None
        if request.error is not None:
            raise request.error

    def _pass_on(self) -> None:
        self._paused = time.perf_counter()
        self.working = False
        self._back.put(None)

    def _await_turn(self) -> None:
        if (stop := self._go.get()) is not None:
            raise stop

    def _serve(self) -> None:
        """Serve the requests of the group; its members share the time that it takes."""
        start, members = time.perf_counter(), self.group
        self.group = []
        requests = [strand.request for strand in members if strand.request is not None]
        if not _served(requests) and len(requests) > 1:
            for request in requests:  # one of them fails: the others need not
                _served([request])
        share = (time.perf_counter() - start) / len(members)
        self.idle += share * len(members)
        for strand in members:
            strand.idle -= share


def _served(requests: Sequence[Request]) -> bool:
    """Serve requests together; an error is kept in each of them."""
    for request in requests:
        request.error = None
    try:
        requests[0].serve(requests)
    except Exception as error:
        for request in requests:
            request.error = error
        return False
    return True


class Lockstep:
    """Starts functions, and lets them work in turns.

    As a context manager it stops the functions that have not ended when the block is left: they
    raise KeyboardInterrupt where they wait, or what ended the block if that was no Exception.
    """

    def __init__(self) -> None:
        self.strands: list[Strand] = []  # that have not ended
        self._new: list[Strand] = []
        self._outside = self._loaded = _Globals()
        self._outside.load()  # from now on NumPy's generator can be exchanged

    def start(self, name: Any, function: Callable[[], Any]) -> None:
        """Add a function; it begins in the next round."""
        self._load(self._outside)
        self._new.append(Strand(name, function))
        self.strands.append(self._new[-1])

    def round(self) -> list[Strand]:
        """Let the new functions work, or those whose requests are served next; those that ended."""
        turns = self._new or _next_group(self.strands)
        if not self._new:
            turns[0].group = list(turns)
        self._new = []
        for strand in turns:
            self._turn(strand)
        self._load(self._outside)
        ended = [strand for strand in turns if strand.ended]
        self.strands = [strand for strand in self.strands if not strand.ended]
        return ended

    def _turn(self, strand: Strand, stop: BaseException | None = None) -> None:
        self._load(strand.globals)
        strand.begin_turn(stop)
        strand.end_turn()

    def _load(self, state: _Globals) -> None:
        if state is not self._loaded:
            self._loaded.save()
            self._loaded = state
            state.load()

    def __enter__(self) -> Lockstep:
        return self

    def __exit__(self, kind, error: BaseException | None, traceback) -> None:
        stop = KeyboardInterrupt() if isinstance(error, Exception | None) else error
        for strand in self.strands:
            strand.end_turn()
            while not strand.ended:
                self._turn(strand, stop)
        self.strands = []
        self._load(self._outside)


def _next_group(strands: Sequence[Strand]) -> list[Strand]:
    """The functions whose requests are of the highest rank and, among these, of the same kind."""
    first = max(strands, key=lambda strand: strand.request.rank)
    return [strand for strand in strands if strand.request.kind == first.request.kind]


def current() -> Strand | None:
    """The function that calls this, or None outside of a :class:`Lockstep`."""
    return getattr(_here, "strand", None)


def hand_in(request: Request) -> None:
    """Let the others work until the request is served.

    Raises:
        Exception: what serving this request alone raises.
    """
    _here.strand.pause(request)


def report_share(share: float) -> None:
    """Tell the starter of this function which part of the free memory its work takes."""
    if strand := current():
        strand.share = share


def now() -> float:
    """A clock in seconds, which stands still while others work."""
    strand = current()
    return time.perf_counter() - (strand.idle if strand else 0.0)
