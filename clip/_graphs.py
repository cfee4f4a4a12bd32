"""CUDA graphs of text passes: a step's kernels are launched by one call, not one by one.

A graph replays the same kernels on the same memory, so it holds for one structure of prompts, one
dtype, one autocast state. Replay forward computes features, replay backward their gradients; both
equal what is computed without, since the kernels do.
"""

from __future__ import annotations

import contextlib
import weakref
from collections import Counter, OrderedDict
from collections.abc import Callable, Hashable, Iterator, Sequence
from contextvars import ContextVar

import torch

AFTER = 3  # a pass is captured when it comes the third time: a capture costs about ten passes
LIMIT = 4  # graphs at a time; each holds the activations of its pass
REMEMBERED = 256  # passes that are counted
WARM_UP = 2  # passes before a capture, which choose kernels and fill caches

_allowed: ContextVar[bool] = ContextVar("graphs allowed", default=True)


@contextlib.contextmanager
def without_graphs() -> Iterator[None]:
    """Compute text passes without graphs, inside what torch.utils.checkpoint computes twice.

    Its second computation must save the tensors that the first one saved; a replay saves none.
    """
    token = _allowed.set(False)
    try:
        yield
    finally:
        _allowed.reset(token)


class _Token:
    """Lives as long as an autograd graph that a replayed pass belongs to."""


class Graph:
    """A captured pass, forward and backward, with the memory that it reads and writes.

    Args:
        function: from ``inputs`` to one tensor, in kernels of the current device only.
        inputs: tensors like those that a replay gets.
    """

    def __init__(self, function: Callable, inputs: Sequence[torch.Tensor]):
        self.function = function  # the captured kernels read the tensors that it refers to
        self.inputs = [x.detach().clone().requires_grad_(x.requires_grad) for x in inputs]
        self.learned = [x for x in self.inputs if x.requires_grad]
        self.replays = 0
        self._pending: weakref.ref | None = None
        self.capture()

    def capture(self) -> None:
        """Record the kernels of ``forward`` and ``backward``, and the tensors they leave."""
        self._warm_up()
        self.forward, self.backward = torch.cuda.CUDAGraph(), torch.cuda.CUDAGraph()
        with torch.cuda.graph(self.forward, capture_error_mode="thread_local"):
            self.output = self.function(*self.inputs)
        self.grad_output = torch.empty_like(self.output)
        pool = self.forward.pool()
        with torch.cuda.graph(self.backward, pool=pool, capture_error_mode="thread_local"):
            # retained, since a method may go backward twice after one forward pass
            self.grads = torch.autograd.grad(
                self.output, self.learned, self.grad_output, retain_graph=True
            )

    def _warm_up(self) -> None:
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(WARM_UP):
                output = self.function(*self.inputs)
                torch.autograd.grad(output, self.learned, torch.ones_like(output))
        torch.cuda.current_stream().wait_stream(stream)

    @property
    def pending(self) -> bool:
        """Whether a backward pass may still come for the latest replay."""
        return self._pending is not None and self._pending() is not None

    def replay(self, inputs: Sequence[torch.Tensor]) -> torch.Tensor:
        """The output for other inputs, with its place in the autograd graph."""
        return _Replay.apply(self, *inputs)


class _Replay(torch.autograd.Function):
    @staticmethod
    def forward(ctx, graph: Graph, *inputs):
        for static, x in zip(graph.inputs, inputs, strict=True):
            static.detach().copy_(x)
        graph.forward.replay()
        graph.replays += 1
        ctx.graph, ctx.number, ctx.token = graph, graph.replays, _Token()
        graph._pending = weakref.ref(ctx.token)
        return graph.output.detach().clone()

    @staticmethod
    def backward(ctx, grad):
        graph = ctx.graph
        if ctx.number != graph.replays:
            raise RuntimeError(
                "a second backward pass through a CUDA graph that has been replayed in between: "
                "set COMPUTE.GRAPHS False"
            )
        graph.grad_output.copy_(grad)
        graph.backward.replay()
        graph._pending = None
        grads = iter(graph.grads)
        return None, *(next(grads).clone() if x.requires_grad else None for x in graph.inputs)


class TextGraphs:
    """Captures the text passes that repeat, and replays them.

    Only passes with gradients are captured. A pass whose graph still awaits its backward pass
    (prompts encoded twice in one step) is computed without a graph. Of more than LIMIT graphs the
    least recently used is dropped. If a capture fails, all passes are computed without.
    """

    make = Graph

    def __init__(self) -> None:
        self.seen: Counter[Hashable] = Counter()
        self.graphs: OrderedDict[Hashable, Graph] = OrderedDict()
        self.enabled = True

    def run(self, key: Hashable, function: Callable, *inputs: torch.Tensor) -> torch.Tensor:
        """``function(*inputs)``, which for one ``key`` always does the same."""
        learned = tuple(x.requires_grad for x in inputs)
        allowed = self.enabled and _allowed.get()
        if not (allowed and torch.is_grad_enabled() and any(learned)):
            return function(*inputs)
        device = inputs[0].device.type
        amp = torch.is_autocast_enabled(device) and torch.get_autocast_dtype(device)
        key = key, learned, amp, tuple((x.shape, x.dtype) for x in inputs)
        graph = self.graphs.get(key) or self._captured(key, function, inputs)
        if graph is None or graph.pending:
            return function(*inputs)
        self.graphs.move_to_end(key)
        return graph.replay(inputs)

    def _captured(self, key: Hashable, function: Callable, inputs) -> Graph | None:
        """A new graph if the pass has come often enough and can be captured."""
        self.seen[key] += 1
        if self.seen[key] < AFTER:
            if len(self.seen) > REMEMBERED:
                self.seen = Counter({key: self.seen[key]})
            return None
        while len(self.graphs) >= LIMIT:
            self.graphs.popitem(last=False)
        device = inputs[0].device.type
        dtype, amp = torch.get_autocast_dtype(device), torch.is_autocast_enabled(device)
        try:
            # weights that autocast has cast before the capture would be gone at the replay
            with torch.autocast(device, dtype=dtype, enabled=amp, cache_enabled=False):
                self.graphs[key] = self.make(function, inputs)
        except RuntimeError as error:
            self.enabled = False
            self.graphs.clear()
            print(f"Text passes run without CUDA graphs: {str(error).splitlines()[0]}")
            return None
        print(f"A text pass is replayed as a CUDA graph from now on ({len(self.graphs)} in use)")
        return self.graphs[key]
