"""Mixed precision whose frozen weights are converted once, and in every step: equality and speed.

    python -m benchmarks._casts FOLDER SECONDS [--small]

Ten training steps of methods, images encoded, from the same start (see ``benchmarks/methods.py``).
On a CPU, autocast computes in bf16 and times are CPU time. Runs of this project never do that, so
there only the equality and the numbers of operators mean something.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import time
from collections.abc import Callable
from pathlib import Path
from unittest import mock

import torch
from torch.profiler import ProfilerActivity, profile

from benchmarks import methods
from benchmarks._progress import Report, compare_until
from clip import CLIP, backbones

METHODS = {  # their backbones, at full size and in miniature
    **dict.fromkeys(("VPT", "MaPLe", "TCP", "CLIPLoRA"), ("ViT-B-16/random", "tiny-vit/random")),
    **dict.fromkeys(("MTCoOp", "PLOT"), ("RN50/random", "tiny/random")),
}
STEPS, ROUNDS, TIMES = 10, 3, 5  # steps that are compared; times that TIMES steps are timed
BOUND = 1e-3  # how far learned tensors may be apart, of their way: a GPU adds up in any order
HEADER = (
    *("steps", "", "learned tensors apart, of their way"),
    *("ms, converted in every step", "once", "conversions in a step", "once", "operators", "once"),
)


def prepare(method: str, once: bool, small: bool) -> Callable[[], list[torch.Tensor]]:
    """A training step in mixed precision on a backbone of its own; it returns what is learned."""
    backbones._cached.cache_clear()
    case = {**(methods.SMALL if small else methods.FULL), "method": method, "precision": "amp"}
    case["backbone"] = METHODS[method][small]
    in_every_step = mock.patch.object(CLIP, "convert_once", lambda clip_model: None)
    with (
        mock.patch("trainers._base.choose_precision", lambda wanted, device: wanted),
        contextlib.nullcontext() if once else in_every_step,
    ):
        return methods.prepare("images", **case, gpu=torch.cuda.is_available())


def compare(method: str, small: bool) -> dict:
    """A row: distance of the learned tensors, times in milliseconds, counts of operators."""
    # on a GPU nn.MultiheadAttention has no fast path under autocast
    with mock.patch("torch.backends.mha.get_fastpath_enabled", lambda: False):
        steps = [prepare(method, once, small) for once in (False, True)]
        starts = [_copied(step()) for step in steps]
        for _ in range(STEPS - 2):
            for step in steps:
                step()
        each, once = (_copied(step()) for step in steps)
        times = [[_milliseconds(step) for step in steps] for _ in range(ROUNDS)]
        counts = [_count(step) for step in steps]
    apart = _distance(each, once) / _distance(each, starts[0])
    return {
        "what": method,
        "ok": apart <= BOUND,
        "apart": apart,
        "ms": [min(column) for column in zip(*times, strict=True)],
        "conversions": [found["aten::_to_copy"] for found in counts],
        "operators": [sum(found.values()) for found in counts],
    }


def _copied(tensors: list[torch.Tensor]) -> list[torch.Tensor]:
    return [x.detach().double().clone() for x in tensors]


def _distance(left: list[torch.Tensor], right: list[torch.Tensor]) -> float:
    return sum(float((a - b).square().sum()) for a, b in zip(left, right, strict=True)) ** 0.5


def _milliseconds(step: Callable[[], object]) -> float:
    """Time of one step: on a GPU that of the clock, on a CPU that of the processor."""
    gpu = torch.cuda.is_available()
    clock = time.perf_counter if gpu else time.process_time
    if gpu:
        torch.cuda.synchronize()
    start = clock()
    for _ in range(TIMES):
        step()
    if gpu:
        torch.cuda.synchronize()
    return (clock() - start) / TIMES * 1000


def _count(step: Callable[[], object]) -> dict[str, int]:
    """How often a step calls each operator, nested ones too."""
    with profile(activities=[ProfilerActivity.CPU]) as found:
        step()
    return {e.key: e.count for e in found.key_averages() if e.key.startswith("aten::")}


def cells(row: dict) -> tuple[str, ...]:
    """A row in words."""
    if "apart" not in row:
        return row["what"], "FAILED", *[""] * 7
    found = (f"{x:.1f}" for x in row["ms"])
    counts = (f"{x:,}" for x in (*row["conversions"], *row["operators"]))
    return row["what"], "ok" if row["ok"] else "FAILED", f"{row['apart']:.1e}", *found, *counts


def main(arguments: list[str] | None = None) -> int:
    """Compare; 1 if something differs, fails or is left out."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks._casts")
    parser.add_argument("folder", type=Path)
    parser.add_argument("seconds", type=float)
    parser.add_argument("--small", action="store_true")
    args = parser.parse_args(arguments)
    title = "Mixed precision: frozen weights converted in every step, and once"
    chosen = ["VPT"] if args.small else METHODS
    work = {name: functools.partial(compare, name, args.small) for name in chosen}
    report = Report(args.folder, "casts", title)
    return 0 if compare_until(report, args.seconds, work, HEADER, cells) else 1


if __name__ == "__main__":
    raise SystemExit(main())
