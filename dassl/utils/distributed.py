"""One run over several processes, started by ``torchrun``; in a single process, no-ops.

Every process holds all learned parameters and computes the whole loss. The expensive part, images
and prompts through frozen towers, is sharded: each process computes its slice and all gather the
results. With W processes each minimises 1/W of the loss, so the gradient of the run is the sum of
their gradients, both through rows that one process computed and through what all computed.
"""

from __future__ import annotations

import contextlib
import datetime
import os
from collections.abc import Iterable, Iterator
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from .errors import UserError

TIMEOUT = datetime.timedelta(days=1)  # one process may encode images while the others wait
# Torch 2.6 can deadlock when it frees a group right after its last use; these stay until the end.
_joined: list[dist.ProcessGroup] = []


def world_size() -> int:
    """W, the number of processes of this run."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def rank() -> int:
    """Index of this process, from 0 to W - 1."""
    return dist.get_rank() if world_size() > 1 else 0


def is_main() -> bool:
    """Whether this process writes and prints."""
    return rank() == 0


@contextlib.contextmanager
def session() -> Iterator[None]:
    """Join the processes that torchrun started, if any; only the first one prints."""
    if int(os.environ.get("WORLD_SIZE", "1")) == 1 or "RANK" not in os.environ:
        yield
        return
    gpus = torch.cuda.device_count()
    if gpus:
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")) % gpus)
    dist.init_process_group("cpu:gloo,cuda:nccl" if gpus else "gloo", timeout=TIMEOUT)
    _joined.append(dist.group.WORLD)
    with contextlib.ExitStack() as stack:
        stack.callback(dist.destroy_process_group)
        if not is_main():
            silence = stack.enter_context(open(os.devnull, "w"))
            stack.enter_context(contextlib.redirect_stdout(silence))
        yield


def refuse(name: str) -> None:
    """Raise UserError in a run of several processes, which ``name`` does not support."""
    if world_size() > 1:
        raise UserError(
            f"{name} runs in one process, but torchrun started {world_size()}: start it with "
            "python train.py"
        )


def barrier() -> None:
    """Wait for the others."""
    if world_size() > 1:
        dist.barrier()


def broadcast(value: Any) -> Any:
    """The first process's value."""
    if world_size() == 1:
        return value
    held = [value]
    dist.broadcast_object_list(held, src=0)
    return held[0]


def anywhere(flag: bool) -> bool:
    """Whether the flag is True in any process."""
    return bool(largest(flag))


def largest(value: int) -> int:
    """The largest of the processes' values."""
    if world_size() == 1:
        return value
    values = [value] * world_size()
    dist.all_gather_object(values, value)
    return max(values)


def share(n: int, of: int | None = None) -> slice:
    """The slice of n rows that a process computes, by default this one: about n / W rows."""
    number, parts = rank() if of is None else of, world_size()
    return slice(n * number // parts, n * (number + 1) // parts)


def largest_share(n: int) -> int:
    """Number of rows in the largest of the slices of n rows."""
    return -(-n // world_size())


def padded_share(n: int) -> list[int]:
    """Indices of the rows that this process computes, padded to the largest share by the last row.

    A share may be short or empty; its padding is dropped when shares are gathered.
    """
    mine = list(range(n)[share(n)])
    return mine + [n - 1] * (largest_share(n) - len(mine))


def gather_rows(rows: Tensor, n: int) -> Tensor:
    """All n rows (n, ...), gathered from the processes' slices (:func:`share`), with gradients.

    Args:
        rows: this process's slice; rows behind it are ignored.
    """
    return rows if world_size() == 1 else _Gather.apply(rows, n)


class _Gather(torch.autograd.Function):
    """Concatenation, with its adjoint for a loss that is the sum of the processes' losses."""

    @staticmethod
    def forward(ctx, rows: Tensor, n: int) -> Tensor:
        ctx.n = n
        ctx.rows = len(rows)
        shares = [share(n, of) for of in range(world_size())]
        padded = rows.new_zeros((largest_share(n), *rows.shape[1:]))
        padded[: len(rows)] = rows
        pieces = [torch.empty_like(padded) for _ in shares]
        dist.all_gather(pieces, padded)
        sizes = [part.stop - part.start for part in shares]
        return torch.cat([piece[:size] for piece, size in zip(pieces, sizes, strict=True)])

    @staticmethod
    def backward(ctx, gradient: Tensor) -> tuple[Tensor, None]:
        gradient = gradient.contiguous().clone()
        dist.all_reduce(gradient)
        own = gradient[share(ctx.n)]
        more = ctx.rows - len(own)
        return (torch.cat([own, own.new_zeros((more, *own.shape[1:]))]) if more else own), None


def sum_gradients(params: Iterable[Tensor]) -> None:
    """Add up the gradients of all processes, in one message per type.

    A parameter without a gradient in every process keeps none, and an optimizer skips it.
    """
    if world_size() == 1:
        return
    groups: dict[torch.dtype, list[Tensor]] = {}
    for param in params:
        groups.setdefault(param.dtype, []).append(param)
    for some in groups.values():
        grads = [torch.zeros_like(p) if p.grad is None else p.grad for p in some]
        there = torch.tensor([p.grad is not None for p in some]).to(grads[0])
        flat = torch.cat([*(g.flatten() for g in grads), there])
        dist.all_reduce(flat)
        *summed, there = flat.split([*(g.numel() for g in grads), len(some)])
        if all(p.grad is not None for p in some):  # reading flags would synchronize
            found = [True] * len(some)
        else:
            found = [count > 0 for count in there.tolist()]
        for param, grad, known in zip(some, summed, found, strict=True):
            param.grad = grad.view_as(param) if known else None


def same_everywhere(tensors: Iterable[Tensor]) -> None:
    """Overwrite tensors with those of the first process."""
    if world_size() > 1:
        for tensor in tensors:
            dist.broadcast(tensor, src=0)
