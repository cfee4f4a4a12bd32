"""The published numbers on CoOp's datasets as shipped: base-to-new, and few-shot averages."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache

from .compare import harmonic_mean
from .published import read_shipped

AVERAGE = "average"  # over the eleven
SHOTS = ("1", "2", "4", "8", "16")


@dataclass(frozen=True)
class Source:
    """One method's numbers on one dataset, or their average, as one source prints them."""

    method: str
    dataset: str
    values: dict[str, float]  # by column
    source: str
    transductive: bool


@cache
def base_new_sources() -> tuple[Source, ...]:
    """The base-to-new rows as shipped; H is that of base and new, as some prints differ."""
    return tuple(_read("published_base_to_new.csv", _base_new))


@cache
def few_shot_sources() -> tuple[Source, ...]:
    """The few-shot rows as shipped, those on the eleven datasets."""
    return tuple(_read("published_few_shot.csv", _few_shot))


def _read(name: str, values_of: Callable[[dict[str, str]], dict[str, float]]) -> Iterator[Source]:
    for line in read_shipped(name):
        if line.get("sets", "11") == "11":
            dataset, transductive = line.get("dataset", AVERAGE), line["transductive"] == "yes"
            values = values_of(line)
            yield Source(line["method"], dataset, values, line["source"], transductive)


def _base_new(line: dict[str, str]) -> dict[str, float]:
    base, new = float(line["base"]), float(line["new"])
    return {"base": base, "new": new, "H": harmonic_mean(base, new) or 0.0}


def _few_shot(line: dict[str, str]) -> dict[str, float]:
    return {shots: float(line[shots]) for shots in SHOTS}
