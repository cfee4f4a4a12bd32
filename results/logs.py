"""Logs of CoOp, SoftCPT and their relatives: what a run found, where it left no record."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

ENDS = ("Finish training", "Finished training")  # of Dassl's versions, before the last test
RESULT = "=> result"
HEADS = ("** Arguments **", "** Config **")
NUMBER = r"([\d.eE+-]+)%"
VALUE = re.compile(rf"\* (\w+): {NUMBER}")
GROUP = re.compile(rf"\* overall_metric \((.*)\): {NUMBER}")
TASK = re.compile(rf"\* task: (\d+) \((.*)\)\s+total: [\d,]+\s+metric: {NUMBER}")
SETTING = re.compile(r"(\s*)(\w+):(?: (.*))?")


@dataclass
class Log:
    """What one log says.

    Attributes:
        settings: its arguments and configuration, dotted keys.
        values: percentages of the last test by name (accuracy, overall_metric, ...).
        groups: means over groups of tasks that have no mean together.
        tasks: name and percentage by number.
        finished: whether the last launch that it holds came to its end.
    """

    settings: dict[str, str] = field(default_factory=dict)
    values: dict[str, float] = field(default_factory=dict)
    groups: dict[str, float] = field(default_factory=dict)
    tasks: dict[int, tuple[str, float]] = field(default_factory=dict)
    finished: bool = False

    def options(self) -> dict[str, str]:
        """The settings of the trainer that ran: the node that its name begins with."""
        name = self.settings.get("TRAINER.NAME", "").upper()
        nodes = {key.split(".")[1] for key in self.settings if key.startswith("TRAINER.")}
        own = max((node for node in nodes if node and name.startswith(node)), key=len, default="")
        start = f"TRAINER.{own}."
        found = self.settings.items() if own else ()
        return {key.removeprefix(start): v for key, v in found if key.startswith(start)}


def log_files(folder: Path) -> list[Path]:
    """``log.txt`` and the ``log.txt-<time>`` of later launches, in their order."""
    return sorted(path for path in folder.glob("log.txt*") if path.is_file())


def read_logs(folder: Path, test_log: bool = False) -> Log | None:
    """The latest log of a folder that came to its end; None if none did.

    Args:
        test_log: these are evaluations, which end with their result, not trainings. Logs whose
            arguments say ``eval_only: True`` are taken so in any case.
    """
    for path in reversed(log_files(folder)):
        log = parse_log(path.read_text(encoding="utf-8", errors="replace").splitlines(), test_log)
        if log.finished and (log.values or log.groups):
            return log
    return None


def parse_log(lines: Iterable[str], test_log: bool = False) -> Log:
    """What the lines of a log say of the last launch in it: what follows its sign of an end."""
    log, head, path = Log(), "", []
    for line in lines:
        line = line.rpartition("\r")[2]  # behind a progress bar
        text = line.strip()
        if text in HEADS:
            log = Log(log.settings if (head, text) == HEADS else {})
            head, path = text, []
        elif text in _ends(log, test_log):
            log.values, log.groups, log.tasks, log.finished = {}, {}, {}, True
        elif log.finished:
            _take(log, text)
        elif head and (found := SETTING.fullmatch(line)):
            indent, key, value = found.groups()
            path = [(i, k) for i, k in path if i < len(indent)] + [(len(indent), key)]
            log.settings[".".join(k for _, k in path)] = (value or "").strip()
    return log


def _ends(log: Log, test_log: bool) -> tuple[str, ...]:
    evaluation = test_log or log.settings.get("eval_only") == "True"
    return (RESULT,) if evaluation else ENDS


def _take(log: Log, text: str) -> None:
    for pattern in (TASK, GROUP, VALUE):
        found = pattern.match(text)
        if found and (percentage := _number(found[found.lastindex])) is not None:
            if pattern is TASK:
                log.tasks[int(found[1])] = found[2], percentage
            else:
                (log.groups if pattern is GROUP else log.values)[found[1]] = percentage
            return


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None
