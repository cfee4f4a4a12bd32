"""Profile of a NATA step on warm features: kernels, gaps between them, operators.

    python -m benchmarks._profile FOLDER SECONDS [--small]

The step is that of ``benchmarks/gpu.py`` at General-10's shape (RN50). A gap is time in which the
GPU has no kernel, copy or fill to do: the step's time without a profiler, less the time of its
kernels in the profile.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

import torch
from torch.autograd import DeviceType
from torch.profiler import ProfilerActivity, profile

from benchmarks import gpu
from benchmarks._progress import Report, say, table

STEPS, WARM_UP = 5, 5
TOP = 10


def warm_step(small: bool) -> tuple[Callable[[], object], torch.device]:
    """A training step whose batch is where a stored feature's would be, and its device."""
    size = gpu.SMALL if small else gpu.FULL
    trainer = gpu.make_trainer("NATA", size.backbones[0], size, gpu.make_space(size.classes))
    batch = gpu.make_warm_batch(trainer, size)
    if trainer.device.type == "cuda":
        for key in ("label", "task"):
            batch[key] = batch[key].pin_memory()
    return lambda: trainer.train_step(batch, gpu.STEP), trainer.device


def busy(spans: list[tuple[float, float]]) -> float:
    """The length of what intervals cover together."""
    total, end = 0.0, float("-inf")
    for start, stop in sorted(spans):
        total += max(0.0, stop - max(start, end))
        end = max(end, stop)
    return total


def profiled(step: Callable[[], object], device: torch.device) -> dict:
    """Numbers of one step: times in milliseconds, counts, the kernels and operators on top."""
    wall, memory = gpu.measure(step, 4 * STEPS, device)
    on_gpu = device.type == "cuda"
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if on_gpu else [])]
    with profile(activities=activities) as found:
        for _ in range(STEPS):
            step()
        if on_gpu:
            torch.cuda.synchronize()
    events, sums = found.events(), found.key_averages()
    there = [e for e in events if e.device_type == DeviceType.CUDA and not e.is_user_annotation]
    spans = [(e.time_range.start, e.time_range.end) for e in there]
    kernels = busy(spans) / 1000 / STEPS
    launches = sum(e.count for e in sums if "LaunchKernel" in e.key)
    calls = sum(e.count for e in sums if e.key.startswith("aten::"))
    return {
        "wall_ms": wall * 1000,
        "kernel_ms": kernels,
        "gap_share": max(0.0, 1 - kernels / (wall * 1000)) if on_gpu else None,
        "kernel_launches": launches / STEPS,
        "device_events": len(there) / STEPS,
        "operators": calls / STEPS,
        "peak_gib": memory / 2**30,
        "kernels": _top(sums, "self_device_time_total", DeviceType.CUDA),
        "cpu": _top(sums, "self_cpu_time_total", DeviceType.CPU),
    }


def _top(sums, key: str, side: DeviceType) -> list[dict]:
    """What takes longest on a side, per step."""
    own = [e for e in sums if e.device_type == side and getattr(e, key) > 0]
    own = [e for e in own if not e.is_user_annotation]  # such as a whole optimizer step
    own.sort(key=lambda e: -getattr(e, key))
    return [
        {"name": e.key[:100], "calls": e.count / STEPS, "ms": getattr(e, key) / 1000 / STEPS}
        for e in own[:TOP]
    ]


def described(found: dict) -> str:
    """The numbers as Markdown tables."""
    gap = "" if found["gap_share"] is None else f"{100 * found['gap_share']:.0f} %"
    lines = [
        ("time of a step, without the profiler", f"{found['wall_ms']:.2f} ms"),
        ("kernels, copies and fills take", f"{found['kernel_ms']:.2f} ms"),
        ("share of the step in which the GPU does nothing", gap),
        ("kernel launches", f"{found['kernel_launches']:.0f}"),
        ("kernels, copies and fills", f"{found['device_events']:.0f}"),
        ("operators called, nested ones too", f"{found['operators']:.0f}"),
        ("peak memory of the GPU", f"{found['peak_gib']:.2f} GiB"),
    ]
    text = table(("of one step", ""), lines)
    for key, title in {"kernels": "kernel", "cpu": "on the CPU, itself"}.items():
        rows = [(f"`{e['name']}`", f"{e['calls']:.0f}", f"{e['ms']:.3f}") for e in found[key]]
        text += "\n" + table((title, "calls", "ms"), rows)
    return text


def main(arguments: list[str] | None = None) -> int:
    """Profile and write the tables."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks._profile")
    parser.add_argument("folder", type=Path)
    parser.add_argument("seconds", type=float, help="not looked at: it takes seconds")
    parser.add_argument("--small", action="store_true")
    args = parser.parse_args(arguments)
    step, device = warm_step(args.small)
    for _ in range(WARM_UP):
        step()
    say("profile: warm")
    found = profiled(step, device)
    shape = "in miniature" if args.small else "at General-10’s shape, RN50, batch 32"
    report = Report(args.folder, "profile", f"A step of NATA on warm features, {shape}")
    report.save(described(found), found)
    print((args.folder / "profile.md").read_text(encoding="utf-8"), flush=True)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
