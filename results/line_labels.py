"""Where names stand beside the ends of lines, so that none covers another."""

from __future__ import annotations

from collections.abc import Sequence

LINE = 0.145  # inches of a line of text, with the gap to the next


def spread_out(wanted: Sequence[float], sizes: Sequence[float]) -> list[float]:
    """Places from 0 to 1, as close as possible to the wanted ones, at which labels do not overlap.

    The sum of squared distances is the least possible: each group of labels that touch stands
    around the mean of the places they want (isotonic regression by pooling neighbours).

    Args:
        sizes: height of each label, in the same unit.
    """
    order = sorted(range(len(wanted)), key=lambda i: wanted[i])
    offsets = []  # of each label above the lowest one, if all touch
    top = 0.0
    for i in order:
        offsets.append(top + sizes[i] / 2)
        top += sizes[i]
    groups: list[list[float]] = []  # mean of wanted - offset, number of labels
    for i, offset in zip(order, offsets, strict=True):
        groups.append([wanted[i] - offset, 1])
        while len(groups) > 1 and groups[-2][0] > groups[-1][0]:
            mean, count = groups.pop()
            total = groups[-1][1] + count
            groups[-1] = [(groups[-1][0] * groups[-1][1] + mean * count) / total, total]
    bases = [mean for mean, count in groups for _ in range(int(count))]
    highest = max(0.0, 1.0 - top)
    places = [0.0] * len(wanted)
    for i, offset, base in zip(order, offsets, bases, strict=True):
        places[i] = min(max(base, 0.0), highest) + offset
    return places
