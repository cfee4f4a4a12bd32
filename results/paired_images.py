"""McNemar's test: two methods on the same test images, seed by seed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from .aggregate import Row
from .compare import comparable_rows, runs_of_same_seed
from .rendering import Cell, Table
from .shots import shots_name

if TYPE_CHECKING:
    import numpy as np

LEVEL = 0.05


@dataclass(frozen=True)
class ImagePairs:
    """The images that only one of two methods classifies right, over the same seeds.

    Args:
        only_method, only_reference: numbers of images, one per seed.
        p_values: of the exact two-sided test, one per seed.
        images: number of test images of all tasks.
    """

    suite: str
    shots: int
    method: str
    reference: str
    only_method: tuple[int, ...]
    only_reference: tuple[int, ...]
    p_values: tuple[float, ...]
    images: int


def paired_images(rows: Sequence[Row], reference: str = "") -> list[ImagePairs]:
    """The test for every pair of methods that :func:`comparable_rows` gives.

    Runs without ``predictions.npz``, or of other test images, are left out.
    """
    from .predictions import read_predictions  # imports numpy

    known: dict[Path, tuple[str, np.ndarray] | None] = {}

    def correct(folder: Path) -> tuple[str, np.ndarray] | None:
        if folder not in known:
            found = read_predictions(folder)
            known[folder] = None if found is None else (found.images, found.correct)
        return known[folder]

    out = []
    for a, b, shots in comparable_rows(rows, reference):
        found = []
        for ours, theirs in runs_of_same_seed(a, b):
            first, second = correct(ours.folder), correct(theirs.folder)
            if first and second and first[0] == second[0]:  # the same images
                found.append((first[1], second[1]))
        if found:
            only_a = tuple(int((x & ~y).sum()) for x, y in found)
            only_b = tuple(int((~x & y).sum()) for x, y in found)
            values = tuple(map(mcnemar, only_a, only_b))
            images = len(found[0][0])
            pairs = ImagePairs(a.suite, shots, a.method, b.method, only_a, only_b, values, images)
            out.append(pairs)
    return out


def mcnemar(first: int, second: int) -> float:
    """The exact two-sided p-value of ``first`` against ``second`` discordant images."""
    from scipy import stats

    total = first + second
    return float(stats.binomtest(first, total, 0.5).pvalue) if total else 1.0


def image_table(found: Sequence[ImagePairs]) -> Table:
    """Discordant images and p-values; a row is marked if all its seeds are below 5 %."""
    body = []
    for pair in found:
        clear = max(pair.p_values) < LEVEL and _one_sided(pair)
        cells = (
            Cell(f"{pair.method} − {pair.reference}"),
            Cell(pair.suite),
            Cell(shots_name(pair.shots)),
            Cell(str(pair.images)),
            Cell(_range(pair.only_method)),
            Cell(_range(pair.only_reference)),
            Cell(", ".join(f"{p:.2g}" for p in pair.p_values), max(pair.p_values), best=clear),
        )
        body.append(cells)
    return Table(
        title="The same test images, seed by seed (McNemar)",
        head=("methods", "suite", "shots", "images", "only first", "only second", "p"),
        rows=tuple(body),
        keys=4,
        notes=(
            "only first, only second: images that only this method classifies right, least to most "
            "over seeds; p: exact two-sided McNemar test of each seed; marked: all seeds favour "
            "the same method with p below 0.05; tasks over the same images count each of them; "
            "not corrected for many comparisons",
        ),
        mark="",
    )


def _one_sided(pair: ImagePairs) -> bool:
    signs = {x > y for x, y in zip(pair.only_method, pair.only_reference, strict=True)}
    return len(signs) == 1


def _range(values: Sequence[int]) -> str:
    low, high = min(values), max(values)
    return str(low) if low == high else f"{low} to {high}"
