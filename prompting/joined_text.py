"""The prompts of several runs in one pass of the text tower (:mod:`dassl.utils.lockstep`)."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import torch
import torch.nn.functional as F

from clip.text import Prompts, TextTower
from dassl.utils.lockstep import Request, hand_in

from .encoder_wrapper import EncoderWrapper

FORWARD, BACKWARD = 1, 0  # ranks: forward passes first, so that backward passes wait for each other
_numbers = itertools.count()


class JoinedEncoder(EncoderWrapper):
    """Encodes prompts together with those of the runs that wait beside this one.

    Features and gradients are those of the run alone, up to rounding. Text that is encoded in
    chunks is not joined, since memory is short.
    """

    def encode(self, prompts: Prompts) -> torch.Tensor:
        """Text features (n, e), not normalised."""
        tower = self.encoder
        if not isinstance(tower, TextTower) or tower.chunk or not len(prompts.group):
            return tower.encode(prompts)
        request = _Encoding(tower, prompts)
        hand_in(request)
        if not request.learns:
            return request.features
        return _Joined.apply(request, *_tensors(prompts))


class _Encoding(Request):
    """Prompts to encode."""

    rank = (FORWARD,)
    features: torch.Tensor  # (n, e), without gradients
    joint: _JointPass
    place: int  # among the requests of the pass

    def __init__(self, tower: TextTower, prompts: Prompts):
        self.tower, self.prompts = tower, prompts
        tensors = _tensors(prompts)
        self.learns = torch.is_grad_enabled() and any(x.requires_grad for x in tensors)
        device = tower.device.type
        self.kind = (
            id(tower.transformer),
            tower.tiles,
            self.learns,
            torch.is_autocast_enabled(device) and torch.get_autocast_dtype(device),
            int(prompts.eot.min()) < 0,  # such prompts cannot be packed
            prompts.prefix.shape[1],
            prompts.start,
            *((i, context.shape[1]) for i, context in prompts.deep.items()),
            *(x.dtype for x in tensors),
        )

    def serve(self, requests: Sequence[Request]) -> None:
        """One pass for all requests."""
        joint = _JointPass(self.tower, [r.prompts for r in requests], self.learns)
        for place, (request, features) in enumerate(zip(requests, joint.parts(), strict=True)):
            request.joint, request.place, request.features = joint, place, features


class _Gradients(Request):
    """The gradient (n, e) of a run's features, to be carried back to its prompts."""

    grads: list[torch.Tensor | None]  # of prefix, suffix and deep contexts

    def __init__(self, joint: _JointPass, place: int, grad: torch.Tensor):
        self.joint, self.place, self.grad = joint, place, grad
        self.kind, self.rank = id(joint), (BACKWARD, joint.number)  # the latest pass first

    def serve(self, requests: Sequence[Request]) -> None:
        """One backward pass for all requests."""
        found = self.joint.gradients({r.place: r.grad for r in requests})
        for request in requests:
            request.grads = found[request.place]


class _JointPass:
    """A pass of the text tower over the prompts of several runs.

    Raises:
        FloatingPointError: features or gradients are not finite, and of which run is not known:
            a masked NaN is NaN, so they may have spread to those of other runs.
    """

    def __init__(self, tower: TextTower, prompts: Sequence[Prompts], learns: bool):
        self.number, self.count = next(_numbers), len(prompts)
        self.sizes = [len(each.group) for each in prompts]
        self.lengths = [[len(x) for x in column] for column in _columns(prompts)]
        joined = join(prompts)
        self.inputs = [x.detach() for x in _tensors(joined)]
        for x, column in zip(self.inputs, _columns(prompts), strict=True):
            x.requires_grad_(learns and any(each.requires_grad for each in column))
        self.widths = [x.shape[1] for x in _columns(prompts)[1]]  # S of each run's suffixes
        prefix, suffix, *deep = self.inputs
        joined.prefix, joined.suffix = prefix, suffix
        joined.deep = dict(zip(joined.deep, deep, strict=True))
        with torch.set_grad_enabled(learns):
            self.output = tower.encode(joined)  # (n, e)
        self._check(self.output)

    def _check(self, *tensors: torch.Tensor) -> None:
        if self.count > 1 and not all(bool(x.isfinite().all()) for x in tensors):
            raise FloatingPointError("the text of one of several runs is not finite")

    def parts(self) -> Sequence[torch.Tensor]:
        """The features of each run."""
        return self.output.detach().split(self.sizes)

    def gradients(self, grads: dict[int, torch.Tensor]) -> dict[int, list[torch.Tensor | None]]:
        """Gradients of the inputs of the runs at some places, from those of their features."""
        parts = [grads.get(i, part) for i, part in enumerate(self._zeros())]
        learned = [x for x in self.inputs if x.requires_grad]
        # the graph stays: other runs may come later, or a method may go backward twice
        found = iter(torch.autograd.grad(self.output, learned, torch.cat(parts), retain_graph=True))
        columns = [
            next(found).split(lengths) if x.requires_grad else [None] * self.count
            for x, lengths in zip(self.inputs, self.lengths, strict=True)
        ]
        out = {i: [column[i] for column in columns] for i in grads}
        for i, own in out.items():
            if own[1] is not None:
                own[1] = own[1][:, : self.widths[i]]
        self._check(*(x for own in out.values() for x in own if x is not None))
        return out

    def _zeros(self) -> Sequence[torch.Tensor]:
        return torch.zeros_like(self.output).split(self.sizes)


class _Joined(torch.autograd.Function):
    """A run's features, whose backward pass is joined too."""

    @staticmethod
    def forward(ctx, request: _Encoding, *tensors: torch.Tensor) -> torch.Tensor:
        ctx.joint, ctx.place = request.joint, request.place
        return request.features

    @staticmethod
    def backward(ctx, grad: torch.Tensor):
        request = _Gradients(ctx.joint, ctx.place, grad)
        hand_in(request)
        return None, *request.grads


def _tensors(prompts: Prompts) -> list[torch.Tensor]:
    """The embeddings of prompts, through which gradients pass."""
    return [prompts.prefix, prompts.suffix, *prompts.deep.values()]


def _columns(prompts: Sequence[Prompts]) -> list[tuple[torch.Tensor, ...]]:
    """The prefixes of all, the suffixes of all, the deep contexts of all before each block."""
    return list(zip(*map(_tensors, prompts), strict=True))


def join(prompts: Sequence[Prompts]) -> Prompts:
    """Prompts of one prefix length side by side, each with its own groups."""
    prefixes, suffixes, *deep = _columns(prompts)
    groups = _starts(prefixes)
    rows = _starts(suffixes)
    indices = [each.suffix_index for each in prompts]
    if any(index is not None for index in indices):
        every = [
            torch.arange(len(each.group)) if i is None else i
            for each, i in zip(prompts, indices, strict=True)
        ]
        index = torch.cat([i.cpu() + start for i, start in zip(every, rows, strict=True)])
    else:
        index = None
    longest = max(x.shape[1] for x in suffixes)
    return Prompts(
        prefix=torch.cat(prefixes),
        suffix=torch.cat([F.pad(x, (0, 0, 0, longest - x.shape[1])) for x in suffixes]),
        group=torch.cat([p.group.cpu() + start for p, start in zip(prompts, groups, strict=True)]),
        eot=torch.cat([each.eot.cpu() for each in prompts]),
        suffix_index=index,
        deep={i: torch.cat(c) for i, c in zip(prompts[0].deep, deep, strict=True)},
        start=prompts[0].start,
    )


def _starts(column: Sequence[torch.Tensor]) -> list[int]:
    """Rows before each tensor of a column."""
    return list(itertools.accumulate((len(x) for x in column[:-1]), initial=0))
