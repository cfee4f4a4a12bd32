"""The names of tasks in prompts: the dataset's, reworded for an ablation, or given by hand."""

from __future__ import annotations

import csv
import random
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

from dassl.data import Task
from dassl.utils import UserError, shorten_list, unknown_name

VARIANTS = ("true", "synonym", "shuffled", "random")
NAMES = Path(__file__).parent / "names"
RANDOM_WORDS = (NAMES / "random_words.txt").read_text(encoding="utf-8").split()


def name_tasks(tasks: Sequence[Task], choice: Any, seed: int) -> list[Task]:
    """The tasks with the names of ``DATASET.TASK_NAMES``.

    Args:
        choice: empty for the dataset's names; a list that renames every task, in prompts and in
            results; or what rewords prompts only: one of VARIANTS, or a mapping from the
            dataset's name to other words, for some tasks or all.
        seed: of the variants shuffled and random.

    Raises:
        UserError: a list of another length, an unknown name, or a variant that these tasks lack.
    """
    names = [task.name for task in tasks]
    if isinstance(choice, str):
        words = _variant(names, choice, seed)
    elif isinstance(choice, Mapping):
        words = _by_hand(names, choice)
    else:
        given = list(choice) or names
        if len(given) != len(tasks) or not all(map(_is_text, given)):
            raise UserError(
                f"DATASET.TASK_NAMES must name each of the {len(tasks)} tasks, but is {given}"
            )
        return [replace(task, name=name) for task, name in zip(tasks, given, strict=True)]
    for name, other in zip(names, words, strict=True):
        if name != other:
            print(f"Task {name!r} is called {other!r} in prompts (DATASET.TASK_NAMES)")
    return [
        replace(task, name_in_prompts="" if other == task.name else other)
        for task, other in zip(tasks, words, strict=True)
    ]


def _variant(names: list[str], variant: str, seed: int) -> list[str]:
    """The names in one of the VARIANTS."""
    if variant not in VARIANTS:
        raise unknown_name("variant of DATASET.TASK_NAMES", variant, VARIANTS)
    rng = random.Random(f"task names, seed {seed}")
    if variant == "synonym":
        return _synonyms(names)
    if variant == "shuffled":
        return _shuffled(names, rng)
    return _random_words(names, rng) if variant == "random" else names


def _by_hand(names: list[str], words: Mapping) -> list[str]:
    """The names, replaced where the mapping has another."""
    for name, other in words.items():
        if name not in names:
            raise unknown_name("task in DATASET.TASK_NAMES", str(name), names)
        if not _is_text(other):
            raise UserError(f"DATASET.TASK_NAMES must give words for {name!r}, but has {other!r}")
    return [words.get(name, name) for name in names]


def _synonyms(names: list[str]) -> list[str]:
    known = _known_synonyms()
    if lacking := [name for name in names if name not in known]:
        raise UserError(
            f"DATASET.TASK_NAMES synonym: no synonym is known for {shorten_list(lacking)}; write "
            f"your own, as in  TASK_NAMES: {{{lacking[0]}: other words}}"
        )
    return [known[name] for name in names]


@cache
def _known_synonyms() -> dict[str, str]:
    """This project's own synonyms of the tasks of Digits7, General-10, Plant-6 and Fashion-20."""
    with (NAMES / "task_synonyms.csv").open(encoding="utf-8", newline="") as file:
        return {row["task"]: row["synonym"] for row in csv.DictReader(file)}


def _shuffled(names: list[str], rng: random.Random) -> list[str]:
    """Every task gets the name of another: the names move on by one place in a random circle."""
    if len(names) < 2:
        raise UserError(
            "DATASET.TASK_NAMES shuffled exchanges the names of tasks, but there is a single task"
        )
    circle = rng.sample(range(len(names)), len(names))
    source = dict(zip(circle, circle[1:] + circle[:1], strict=True))
    return [names[source[t]] for t in range(len(names))]


def _random_words(names: list[str], rng: random.Random) -> list[str]:
    """Words about something else, as many as the name has, but at least two; all different."""
    chosen: list[str] = []
    for name in names:
        count = min(max(2, len(name.split())), len(RANDOM_WORDS))
        words = " ".join(rng.sample(RANDOM_WORDS, count))
        while words in chosen:
            words = " ".join(rng.sample(RANDOM_WORDS, count))
        chosen.append(words)
    return chosen


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and bool(value.strip())
