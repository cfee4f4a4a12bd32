"""Compares recipes of pre-training the tiny CLIP, on the pool half of the real digits.

    python -m benchmarks.tiny_recipe                       # the table that the recipe was chosen by
    python -m benchmarks.tiny_recipe --steps 180 --lr 0.002 --seeds 0 1 2

Prints, per recipe and pre-training seed, zero-shot accuracy (%) on the 900 pool images for the five
tasks that captions speak of, their mean, and the seconds of pre-training. The test half is not
read: the pool is the first 900 of range(1797) as random.Random(0) shuffles it.
"""

from __future__ import annotations

import argparse
import itertools
import random
import time

import torch
import torch.nn.functional as F
from sklearn.datasets import load_digits

from clip import _archs
from clip.backbones import TINY_PREPROCESS, from_state
from clip.model import CLIP
from clip.tiny import Recipe
from clip.tiny.captions import DIGITS, SUBJECTS
from clip.tiny.digits import MEAN, SIZE, STD
from clip.tiny.pretrain import pretrain

POOL_SIZE = 900
# Task -> class names and template, in the order of clip.tiny.captions.SUBJECTS.
TASKS = {
    "digit identity": (DIGITS, "a photo of the digit {}."),
    "odd or even": (("even", "odd"), "a photo of {}."),
    "number of loops": (("no loops", "one loop", "two loops"), "a photo of {}."),
    "size of the number": (("less than five", "at least five"), "a photo of {}."),
    "kind of strokes": (("curved", "straight", "both"), "a photo of {}."),
}


def read_pool() -> tuple[torch.Tensor, torch.Tensor]:
    """Pool images (900, 3, 32, 32), normalised, and their digits (900,)."""
    digits = load_digits()
    order = list(range(len(digits.target)))
    random.Random(0).shuffle(order)
    pool = order[:POOL_SIZE]
    images = torch.tensor(digits.images[pool] / 16, dtype=torch.float32)[:, None]
    images = F.interpolate(images, size=SIZE, mode="bilinear", align_corners=False)
    return ((images - MEAN) / STD).expand(-1, 3, -1, -1), torch.tensor(digits.target[pool])


@torch.no_grad()
def zero_shot(model: CLIP, images: torch.Tensor, digits: torch.Tensor) -> list[float]:
    """Accuracy (%) of each task."""
    image = F.normalize(model.encode_image(images), dim=-1)  # (B, e)
    scores = []
    for subject, (names, template) in zip(SUBJECTS, TASKS.values(), strict=True):
        prompts = [template.format(name) for name in names]
        text = F.normalize(model.text_tower.encode_text(prompts), dim=-1)  # (n, e)
        label = torch.tensor(subject.of_digit)[digits]
        scores.append(100 * ((image @ text.T).argmax(1) == label).float().mean().item())
    return scores


def print_row(first: str, scores: list[float], seconds: float) -> None:
    mean = sum(scores) / len(scores)
    cells = "".join(f"{s:8.1f}" for s in [*scores, mean])
    print(f"{first:34s}{cells}{seconds:8.1f}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--steps", type=int, nargs="+", default=[180, 240, 300])
    parser.add_argument("--lr", type=float, nargs="+", default=[2e-3, 1.5e-3])
    parser.add_argument("--images", type=int, nargs="+", default=[128], help="per step")
    parser.add_argument("--captions", type=int, nargs="+", default=[96], help="per step")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--arch", default="tiny", choices=tuple(_archs.TINIES))
    args = parser.parse_args()
    images, digits = read_pool()
    heads = "".join(f"{name[:7]:>8s}" for name in [*TASKS, "mean", "seconds"])
    print(f"{'steps  lr  images captions seed':34s}{heads}")
    for steps, lr, count, texts in itertools.product(
        args.steps, args.lr, args.images, args.captions
    ):
        rows = []
        for seed in args.seeds:
            start = time.perf_counter()
            sizes = {"steps": steps, "lr": lr, "images": count, "captions": texts}
            state = pretrain(Recipe(**sizes, seed=seed, arch=args.arch))
            seconds = time.perf_counter() - start
            model = from_state(state, _archs.arch_config(args.arch), TINY_PREPROCESS, args.arch)
            rows.append((zero_shot(model, images, digits), seconds))
            print_row(f"{steps:5d}  {lr:.4f}  {count:4d}  {texts:4d}  {seed}", *rows[-1])
        means = [sum(column) / len(column) for column in zip(*(r[0] for r in rows), strict=True)]
        print_row(
            f"{steps:5d}  {lr:.4f}  {count:4d}  {texts:4d}  mean",
            means,
            sum(r[1] for r in rows) / len(rows),
        )


if __name__ == "__main__":
    main()
