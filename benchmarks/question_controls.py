"""How much methods learn from the images of DigitQuestions, and how much from the questions alone.

Training answers are unchanged, shuffled among the items of the same question (so that images carry
no information, but questions do), or shuffled among all items. The baseline without images is each
question's most frequent training answer. VQA accuracy and top-1 on
the test part, in percent.

    python -m benchmarks.question_controls
    python -m benchmarks.question_controls --methods CoT --seeds 1
"""

from __future__ import annotations

import argparse
import random
import statistics
from collections import Counter, defaultdict
from dataclasses import replace

import train
from datasets.digit_questions import DigitQuestions
from image_text.answers import vqa_accuracy

from ._rates import outcome_of, print_row


class WithinQuestions(DigitQuestions):
    """Training answers of other items of the same question."""

    def read(self, cfg):
        """The folder of the images, and the questions of each part."""
        root, parts = super().read(cfg)
        parts["train"] = dealt_anew(parts["train"], lambda item: item.question)
        return root, parts


class AmongAll(DigitQuestions):
    """Training answers of other items, whatever the question."""

    def read(self, cfg):
        """The folder of the images, and the questions of each part."""
        root, parts = super().read(cfg)
        parts["train"] = dealt_anew(parts["train"], lambda item: "")
        return root, parts


DATA = {
    "as they are": DigitQuestions,
    "shuffled within questions": WithinQuestions,
    "shuffled among all": AmongAll,
}


def dealt_anew(items: list, group) -> list:
    """The items with the answers of others of the same ``group(item)``, in the same order."""
    places = defaultdict(list)
    for i, item in enumerate(items):
        places[group(item)].append(i)
    out, rng = list(items), random.Random(0)
    for own in places.values():
        for i, j in zip(own, rng.sample(own, len(own)), strict=True):
            out[i] = replace(items[i], answer=items[j].answer, answers=items[j].answers)
    return out


def without_looking(words: list[str]) -> list[float]:
    """VQA accuracy and top-1 of each question's most frequent training answer."""
    cfg = train.setup_cfg(train.parse_args([*words, "SEED", "1"]))
    _, parts = DigitQuestions(cfg).read(cfg)
    answers = defaultdict(Counter)
    for item in parts["train"]:
        answers[item.question][item.answer] += 1
    likeliest = {question: found.most_common(1)[0][0] for question, found in answers.items()}
    agreed, right = [], []
    for item in parts["test"]:
        answer = likeliest[item.question]
        agreed.append(vqa_accuracy(item.answers.count(answer), len(item.answers)))
        right.append(answer == item.answer)
    return [100 * statistics.mean(agreed), 100 * statistics.mean(right)]


def command(method: str, preset: str) -> list[str]:
    """The command line of train.py."""
    words = ["--trainer", method, "--dataset-config-file"]
    words += [str(train.CONFIGS / "datasets/digit_questions.yaml"), "--config-file"]
    return [*words, str(train.CONFIGS / f"trainers/{preset}.yaml")]


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--methods", nargs="+", default=["CoOp", "CoCoOp", "CoT"])
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    args = parser.parse_args()
    heads = [f"VQA accuracy, seed {s}" for s in args.seeds] + ["mean", "top-1"]
    print_row(["method", "training answers", *heads], head=True)
    zero_shot = command("ZeroshotCLIP", "ZeroShot/tiny")
    blank = [""] * len(args.seeds)
    found = outcome_of(zero_shot, 1, DigitQuestions)["tasks"]
    print_row(["zero-shot", "", *blank], [task["value"] for task in found])
    print_row(["without looking", "as they are", *blank], without_looking(zero_shot))
    for method in args.methods:
        for name, data in DATA.items():
            words = command(method, f"{method}/tiny_questions")
            runs = [outcome_of(words, seed, data)["tasks"] for seed in args.seeds]
            agreed, right = ([run[i]["value"] for run in runs] for i in (0, 1))
            print_row([method, name], [*agreed, statistics.mean(agreed), statistics.mean(right)])


if __name__ == "__main__":
    main()
