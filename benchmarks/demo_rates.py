"""Chooses the demo's learning rates: accuracy on pool images that no run trained on.

The 897 test images of Digits7 are not used. The runs are the demo's, with its epochs, on
few-shot draws that the demo does not use, scored on the rest of the 900 pool images. A method's
preset gets the rate with the best mean over the trained-word tasks, shots and draws.

    python -m benchmarks.demo_rates
    python -m benchmarks.demo_rates --methods CoOp-CA --rates 0.002 0.02 --draws 11
"""

from __future__ import annotations

import argparse
import statistics

from dassl.data.datasets import DatasetBase, build_dataset
from sweeps.plan import read_sweep
from sweeps.planned_run import PlannedRun

from ._rates import outcome_of, print_row


def pool_dataset(cfg) -> DatasetBase:
    """The few-shot images to train on, and the rest of the pool, task by task, to score on."""
    few = build_dataset(cfg)
    whole = cfg.clone()
    whole.defrost()
    whole.DATASET.NUM_SHOTS = -1
    everything = build_dataset(whole)
    drawn = {(item.task, item.impath) for item in [*few.train_x, *few.val]}
    pool = [*everything.train_x, *everything.val]
    rest = [item for item in pool if (item.task, item.impath) not in drawn]
    return DatasetBase(few.train_x, None, few.val, rest, few.space, few.split, few.image_roots)


def score(run: PlannedRun, draw: int, options: list[str]) -> float:
    """Mean accuracy over the trained-word tasks, in percent."""
    outcome = outcome_of([*run.argv, *options], draw, pool_dataset)
    return outcome["suite"]["groups"]["trained words"]


def main() -> None:
    """Print a table of methods and rates."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--methods", nargs="+", default=["CoOp-CA", "CoOp-MT", "SoftCPT-NATA"])
    parser.add_argument("--rates", type=float, nargs="+", default=[0.002, 0.006, 0.02])
    parser.add_argument("--draws", type=int, nargs="+", default=[11, 12, 13])
    args = parser.parse_args()
    runs = {
        (run.method, run.shots): run
        for run in read_sweep("configs/sweeps/demo.yaml", methods="all").runs
    }
    shots = sorted({k for _, k in runs if k})
    print_row(["method", "rate", *(f"{k} shots" for k in shots), "mean"], head=True)
    zero_shot = score(runs["zero-shot", 0], 1, ["DATASET.NUM_SHOTS", "1"])
    print_row(["zero-shot", "", *[""] * len(shots)], [zero_shot])
    for method in args.methods:
        for rate in args.rates:
            means = [
                statistics.mean(
                    score(runs[method, k], draw, ["OPTIM.LR", str(rate)]) for draw in args.draws
                )
                for k in shots
            ]
            print_row([method, rate], [*means, statistics.mean(means)])


if __name__ == "__main__":
    main()
