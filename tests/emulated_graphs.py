"""CUDA graphs of text passes without a GPU."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import torch

from clip._graphs import Graph


class Emulated(Graph):
    """A graph without a GPU: as on one, a replay overwrites what the last one left."""

    def capture(self):
        self.output = self.function(*self.inputs)
        self.grad_output = torch.empty_like(self.output)
        self.grads = [torch.zeros_like(x) for x in self.learned]
        self.forward, self.backward = Kernels(self._forward), Kernels(self._backward)

    def _forward(self):
        with torch.enable_grad():  # autograd's functions are computed without
            self.live = self.function(*self.inputs)
        self.output.detach().copy_(self.live.detach())

    def _backward(self):
        found = torch.autograd.grad(self.live, self.learned, self.grad_output, retain_graph=True)
        for static, grad in zip(self.grads, found, strict=True):
            static.copy_(grad)


@dataclasses.dataclass
class Kernels:
    """What a capture recorded."""

    replay: Callable[[], None]
