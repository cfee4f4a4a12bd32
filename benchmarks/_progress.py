"""Progress lines with the elapsed time, and tables that are rewritten with each row."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

from dassl.utils import write_json

BEGAN = "GPU_CHECK_BEGAN"  # when the whole command began, for all of its processes


def elapsed() -> float:
    """Seconds since the command began; its first call in a process tree is that beginning."""
    return time.time() - float(os.environ.setdefault(BEGAN, repr(time.time())))


def say(text: str) -> None:
    """Print a line with the time that has passed."""
    print(f"[{elapsed():6.1f} s] {text}", flush=True)


def table(header: tuple[str, ...], rows: list[tuple]) -> str:
    """A Markdown table."""
    lines = [header, ["---"] * len(header), *rows]
    return "".join(f"| {' | '.join(_cell(c) for c in line)} |\n" for line in lines)


def _cell(value: object) -> str:
    return str(value).replace("|", "\\|").replace("\n", " ")


class Report:
    """One part of the results: ``<name>.md`` and ``<name>.json``, whole after every :meth:`save`.

    Args:
        folder: where both files lie; made if need be.
        name: of the files. title: the heading of the first.
    """

    def __init__(self, folder: Path, name: str, title: str):
        self.folder, self.name, self.title = Path(folder), name, title
        self.folder.mkdir(parents=True, exist_ok=True)

    def save(self, markdown: str, content: object) -> None:
        """Write both files as they stand now."""
        path = self.folder / f"{self.name}.md"
        path.write_text(f"## {self.title}\n\n{markdown}", encoding="utf-8")
        write_json(content, self.folder / f"{self.name}.json")


def compare_until(
    report: Report,
    seconds: float,
    work: dict[str, Callable[[], dict]],
    header: tuple[str, ...],
    cells: Callable[[dict], tuple],
) -> bool:
    """Make the rows that fit the time, saving after each; whether each is there and "ok".

    Args:
        work: what makes a row, by its name. cells: a row in words; one of a comparison that failed
            or was left out has "what" and "ok" alone.
    """
    end, rows = elapsed() + seconds, []
    for name, compare in work.items():
        row = {"what": f"{name}: left out, no time left", "ok": False}
        if elapsed() < end:
            try:
                row = compare()
            except Exception as error:  # the other rows are wanted all the same
                row["what"] = f"{name}: {type(error).__name__}: {str(error)[:200]}"
        rows.append(row)
        say(" | ".join(cells(row)))
        report.save(table(header, [cells(r) for r in rows]), rows)
    return all(row["ok"] for row in rows)
