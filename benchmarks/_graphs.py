"""Training steps with and without CUDA graphs: equality of the results, and speed.

    python -m benchmarks._graphs FOLDER SECONDS [--small]

Ten steps of a trainer with ``COMPUTE.GRAPHS`` and of one without, from the same start, on the same
batches, in fp32 (RN50's text tower at General-10's shape) and in fp16. On a CPU both are computed
without graphs.
"""

from __future__ import annotations

import argparse
import functools
from pathlib import Path

import torch

from benchmarks import gpu
from benchmarks._progress import Report, compare_until

STEPS = 10
BOUND = {"fp32": 1e-4, "fp16": 2e-2}  # how far tensors may be apart, of the way they went
VARIANTS = {"NATA": gpu.FULL.classes, "CSTA": (47, 10, 37), "CoOp": (100,), "CoCoOp": (20,)}
HEADER = ("steps", "", "learned tensors apart, of their way", "graphs")


def ten_steps(variant: str, precision: str, size: gpu.Size, graphs: bool) -> dict:
    """What is learned at the start and the end, and the graphs in use at the end."""
    space = gpu.make_space(size.classes)
    name = gpu.VARIANTS.get(variant, gpu.ONE_TASK.get(variant))[0]
    key = gpu.TRAINER_REGISTRY.get(name).KEY
    opts = (f"TRAINER.{key}.PREC", precision, "COMPUTE.GRAPHS", str(graphs))
    trainer = gpu.make_trainer(variant, size.backbones[0], size, space, *opts)
    state = trainer.model.prompter.state_dict()
    start = {name: x.detach().clone() for name, x in state.items()}
    generator = torch.Generator().manual_seed(0)
    for _ in range(STEPS):
        task = torch.randint(len(size.classes), (size.batch,), generator=generator)
        label = [int(torch.randint(size.classes[t], (), generator=generator)) for t in task]
        feat = torch.randn(size.batch, trainer.clip.text_tower.out_dim, generator=generator)
        feat = feat.to(trainer.device)
        batch = {"feat": feat, "label": torch.tensor(label), "task": task}
        trainer.train_step(batch, gpu.STEP)
    held = trainer.model.text.tower.graphs
    end = {name: x.detach().clone() for name, x in state.items()}
    return {"start": start, "end": end, "graphs": len(held.graphs) if held else 0}


def compare(variant: str, precision: str, size: gpu.Size) -> dict:
    """A row: distance of the learned tensors, relative to their change without graphs."""
    without, graphed = (ten_steps(variant, precision, size, graphs) for graphs in (False, True))
    apart = _distance(graphed["end"], without["end"]) / _distance(without["end"], without["start"])
    captured = graphed["graphs"] > 0 or not torch.cuda.is_available()
    return {
        "what": f"{variant}, {precision}",
        "apart": apart,
        "graphs": graphed["graphs"],
        "ok": captured and apart <= BOUND[precision],
    }


def _size(variant: str, small: bool) -> gpu.Size:
    classes = (4, 3) if small else VARIANTS[variant]
    classes = classes[:1] if variant in gpu.ONE_TASK else classes
    batch = 4 if variant == "CoCoOp" else 32
    return gpu.Size(("tiny/random" if small else "RN50/random",), classes, batch, STEPS)


def _distance(left: dict, right: dict) -> float:
    return sum(float((left[k].double() - right[k].double()).square().sum()) for k in left) ** 0.5


def cells(row: dict) -> tuple[str, ...]:
    """A row in words."""
    verdict = "ok" if row["ok"] else "FAILED"
    return row["what"], verdict, f"{row.get('apart', float('nan')):.1e}", str(row.get("graphs", 0))


def main(arguments: list[str] | None = None) -> int:
    """Compare; 1 if something differs, fails or is left out."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks._graphs")
    parser.add_argument("folder", type=Path)
    parser.add_argument("seconds", type=float)
    parser.add_argument("--small", action="store_true")
    args = parser.parse_args(arguments)
    work = {
        f"{variant}, {precision}": functools.partial(
            compare, variant, precision, _size(variant, args.small)
        )
        for variant in VARIANTS
        for precision in BOUND
    }
    report = Report(args.folder, "graphs", "Ten training steps with CUDA graphs and without")
    return 0 if compare_until(report, args.seconds, work, HEADER, cells) else 1


if __name__ == "__main__":
    raise SystemExit(main())
