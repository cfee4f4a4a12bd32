"""Chooses the demo's learning rates: accuracy on pool images that were not drawn for training.

The 897 test images of Digits7 are not looked at. Each method is trained at 1, 4 and 16 shots from
few-shot draws that the demo does not use, and scored on the rest of the 900 pool images; the rate
with the best mean over the trained-word tasks, shots and draws is the one to put into the method's
YAML for the tiny CLIP.

    python -m benchmarks.demo_rates
    python -m benchmarks.demo_rates --methods CLIP-Adapter --rates 0.002 0.02 --draws 11
"""

from __future__ import annotations

import argparse
import contextlib
import io
import statistics
import tempfile
from pathlib import Path

import train
from dassl.config.node import read_yaml
from dassl.data.datasets import DatasetBase, build_dataset
from dassl.engine import TRAINER_REGISTRY, EachTask
from dassl.utils import set_random_seed

SWEEP = "configs/sweeps/demo.yaml"


def pool_dataset(cfg) -> DatasetBase:
    """The few-shot images to train on, and the rest of the pool, task by task, to score on."""
    few = build_dataset(cfg)
    whole = cfg.clone()
    whole.defrost()
    whole.DATASET.NUM_SHOTS = -1
    everything = build_dataset(whole)
    drawn = {(item.task, item.impath) for item in few.train_x}
    pool = [*everything.train_x, *everything.val]
    rest = [item for item in pool if (item.task, item.impath) not in drawn]
    return DatasetBase(few.train_x, None, few.val, rest, few.space, few.split, few.split_hash)


def score(method: dict, rate: float, shots: int, draw: int, folder: str) -> float:
    """Mean accuracy over the trained-word tasks, in percent; ``method``: its entry in the sweep."""
    args = ["--trainer", method["trainer"], "--config-file", method["config"], "--seed", str(draw)]
    args += ["--dataset-config-file", "configs/datasets/digits7.yaml", "--output-dir", folder]
    args += [str(word) for pair in (method.get("opts") or {}).items() for word in pair]
    args += ["DATASET.NUM_SHOTS", str(shots), "OPTIM.LR", str(rate)]
    cfg = train.setup_cfg(train.parse_args(args))
    dataset = pool_dataset(cfg)
    set_random_seed(draw)
    cls = TRAINER_REGISTRY.get(method["trainer"])
    with contextlib.redirect_stdout(io.StringIO()):
        if cls.suite == "each":
            trainer = EachTask(cfg, cls, dataset)
        else:
            trainer = cls(cfg, dataset=dataset)
        trainer.train()
    return trainer.outcome()["suite"]["groups"]["trained words"]


def main() -> None:
    """Print a table of methods and rates."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    known = read_yaml(Path(SWEEP))["methods"]
    default = ["CoOp", "CoOp-MT", "SoftCPT-NATA"]
    parser.add_argument("--methods", nargs="+", default=default, choices=known, help="of the demo")
    parser.add_argument("--rates", type=float, nargs="+", default=[0.002, 0.006, 0.02, 0.06])
    parser.add_argument("--shots", type=int, nargs="+", default=[1, 4, 16])
    parser.add_argument("--draws", type=int, nargs="+", default=[11, 12, 13])
    args = parser.parse_args()
    print("| method | rate | " + " | ".join(f"{k} shots" for k in args.shots) + " | mean |")
    print("|---|---|" + "---|" * (len(args.shots) + 1))
    for method in args.methods:
        for rate in args.rates:
            means = []
            for shots in args.shots:
                values = []
                for draw in args.draws:
                    with tempfile.TemporaryDirectory() as folder:
                        values.append(score(known[method], rate, shots, draw, folder))
                means.append(statistics.mean(values))
            cells = " | ".join(f"{m:.2f}" for m in [*means, statistics.mean(means)])
            print(f"| {method} | {rate} | {cells} |", flush=True)


if __name__ == "__main__":
    main()
