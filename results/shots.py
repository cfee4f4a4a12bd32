"""Numbers of training images per class (shots) in words and in order; -1 is all images."""

from __future__ import annotations

import math


def shots_name(shots: int) -> str:
    """A number of shots in a table: ``4``, ``all``."""
    return "all" if shots < 0 else str(shots)


def shots_phrase(shots: int) -> str:
    """A number of shots in a sentence: ``1 shot``, ``4 shots``, ``all images``."""
    if shots < 0:
        return "all images"
    return "1 shot" if shots == 1 else f"{shots} shots"


def shots_title(shots: int) -> str:
    """A number of shots in the title of a figure."""
    if shots < 0:
        return "all training images"
    return f"{shots} training image{'' if shots == 1 else 's'} per class"


def shots_order(shots: int) -> float:
    """A key to sort numbers of shots by; all images come last."""
    return math.inf if shots < 0 else shots
