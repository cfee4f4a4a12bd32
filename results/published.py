"""What comparisons with published numbers share: names, settings that must match, remarks."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from .aggregate import Row, Stat
from .rendering import Cell

SEEDS = {1, 2, 3}  # of the published means
SELECTIONS = ("last_step", "none")  # published: the last step; none: nothing is trained by steps


def plain_name(name: str) -> str:
    """A name of a method or suite without case, blanks and dashes."""
    return "".join(char for char in name.lower() if char.isalnum() or char in "*+")


def published_name(name: str, aliases: Mapping[str, str]) -> str:
    """The plain name of a method of ours in a published table."""
    return aliases.get(plain_name(name), plain_name(name))


def mismatches(settings: Mapping[str, str], must_match: Mapping[str, tuple]) -> Iterator[str]:
    """Settings of a run, by key, that have none of the published values."""
    for key, allowed in must_match.items():
        value = settings.get(key, "")
        if (value.split(",")[0] if key == "selection" else value) not in allowed:
            yield f"{key} is {settings.get(key, 'not recorded')}, published: {allowed[0]}"


def seed_difference(row: Row) -> list[str]:
    """Other seeds than the published ones, in words; empty if they are the same."""
    seeds = {run.seed for run in row.runs}
    shown = ", ".join(map(str, sorted(seeds, key=str)))
    return [] if seeds == SEEDS else [f"seeds {shown} (published: 1, 2, 3)"]


def remarks(name: str, why_not: Sequence[str], differs: Sequence[str]) -> list[str]:
    """What keeps a row from being compared, or else from being like the published one, in words."""
    if why_not:
        return [f"{name}: not compared: {'; '.join(why_not)}"]
    return [f"{name}: differs in {'; '.join(differs)}"] if differs else []


def stat_cell(stat: Stat | None) -> Cell:
    """Mean and spread with two decimals; a dash without a value."""
    if stat is None or stat.mean is None:
        return Cell("–", n=0)
    spread = "" if stat.spread is None or stat.n < 2 else f" ± {stat.spread:.2f}"
    return Cell(f"{stat.mean:.2f}{spread}", stat.mean, stat.spread, stat.n)
