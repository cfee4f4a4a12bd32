"""A run of a sweep, and the overrides among its arguments of train.py."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from results.shots import shots_phrase


@dataclass(frozen=True)
class PlannedRun:
    """One run of a sweep: its place in the grid, its folder, and the arguments of train.py."""

    method: str
    dataset: str
    shots: int  # 0 for a method that uses none
    seed: int
    folder: Path
    argv: tuple[str, ...]
    backbone: str = ""  # "": the method's own
    needs: Path | None = None  # folder of a run that must be complete before
    note: str = ""

    def __str__(self) -> str:
        words = [self.method, *filter(None, [self.backbone]), self.dataset]
        if self.shots:
            words += [shots_phrase(self.shots), f"seed {self.seed}"]
        return ", ".join([*words, *filter(None, [self.note])])


def override_words(keys: dict | None) -> list[str]:
    """``KEY VALUE ...`` of a mapping, as train.py takes them."""
    return [str(word) for pair in (keys or {}).items() for word in pair]


def override_pairs(argv: Sequence[str]) -> list[tuple[str, str]]:
    """The KEY VALUE pairs at the end of a planned run's arguments, in their order."""
    words = argv[argv.index("--quiet") + 1 :]
    return list(zip(words[::2], words[1::2], strict=True))
