"""Chooses the learning rates of the presets on pairs: recall on training pairs held out.

Neither the test nor the validation images of DigitCaptions are used: 200 of its 700 training
images, another draw each time, are held out and searched instead, without those that share their
caption with another. A preset gets the rate with the best mean over the draws.

    python -m benchmarks.pair_rates
    python -m benchmarks.pair_rates --methods CoT --rates 0.01 --draws 11 -- OPTIM.MAX_EPOCH 20
"""

from __future__ import annotations

import argparse
import random
import statistics
import time

import train
from datasets.digit_captions import DigitCaptions, drop_repeated_captions

from ._rates import outcome_of, print_row

HELD_OUT = 200  # images


class HeldOut(DigitCaptions):
    """Training pairs of DigitCaptions to train on, others of them to test on."""

    def read(self, cfg):
        """The folder of the images, and the captioned images of each part."""
        root, parts = super().read(cfg)
        pool = parts["train"]
        random.Random(cfg.SEED).shuffle(pool)
        return root, {
            "train": pool[HELD_OUT:],
            "val": [],
            "test": drop_repeated_captions(pool[:HELD_OUT]),
        }


def score(method: str, preset: str, draw: int, options: list[str]) -> float:
    """Mean of the six recalls, in percent."""
    words = ["--trainer", method, "--dataset-config-file"]
    words += [str(train.CONFIGS / "datasets/digit_captions.yaml"), "--config-file"]
    words += [str(train.CONFIGS / f"trainers/{preset}.yaml"), *options]
    return outcome_of(words, draw, HeldOut)["suite"]["value"]


def main() -> None:
    """Print a table of methods and rates."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--methods", nargs="+", default=["CoOp", "CoCoOp", "CoT"])
    parser.add_argument("--rates", type=float, nargs="+", default=[0.001, 0.003, 0.01])
    parser.add_argument("--draws", type=int, nargs="+", default=[11, 12, 13])
    parser.add_argument("opts", nargs="*", metavar="KEY VALUE", help="further options of the runs")
    args = parser.parse_args()
    heads = ["method", "rate", "seconds", *(f"draw {draw}" for draw in args.draws), "mean"]
    print_row(heads, head=True)
    zero_shot = [score("ZeroshotCLIP", "ZeroShot/tiny", draw, []) for draw in args.draws]
    print_row(["zero-shot", "", ""], [*zero_shot, statistics.mean(zero_shot)])
    for method in args.methods:
        for rate in args.rates:
            start = time.process_time()
            options = ["OPTIM.LR", str(rate), *args.opts]
            values = [score(method, f"{method}/tiny_pairs", d, options) for d in args.draws]
            seconds = (time.process_time() - start) / len(args.draws)
            print_row([method, rate, f"{seconds:.0f}"], [*values, statistics.mean(values)])


if __name__ == "__main__":
    main()
