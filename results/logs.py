"""Reads the results and settings of a run from a log of CoOp, SoftCPT or a fork of them."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from .schema import is_percentage

ENDS = ("Finish training", "Finished training")  # in two versions of Dassl, before the last test
RESULT = "=> result"
HEADS = ("** Arguments **", "** Config **")
NUMBER = r"([\d.eE+-]+)%"
VALUE = re.compile(rf"\* (\w+): {NUMBER}")
GROUP = re.compile(rf"\* overall_metric \((.*)\): {NUMBER}")
TASK = re.compile(rf"\* task: (\d+) \((.*)\)\s+total: [\d,]+\s+metric: {NUMBER}")
SETTING = re.compile(r"(\s*)(\w+):(?: (.*))?")


@dataclass
class Log:
    """The settings and results in a log, of the last launch that it holds.

    Attributes:
        settings: arguments and configuration by dotted key.
        values: percentages of the last test by name (accuracy, overall_metric, ...).
        groups: mean of each group of tasks, where there is no mean over all.
        tasks: name and percentage by task number.
        finished: whether the launch reached its end.
    """

    settings: dict[str, str] = field(default_factory=dict)
    values: dict[str, float] = field(default_factory=dict)
    groups: dict[str, float] = field(default_factory=dict)
    tasks: dict[int, tuple[str, float]] = field(default_factory=dict)
    finished: bool = False

    def options(self) -> dict[str, str]:
        """The settings of the trainer that ran: those below the node named like it.

        A log holds the nodes of all trainers. MTCOOP is the longest node that begins the name of
        SoftCPT's trainer MTCoOp, COOP of CoOp's.
        """
        name = self.settings.get("TRAINER.NAME", "").upper()
        nodes = {key.split(".")[1] for key in self.settings if key.startswith("TRAINER.")}
        node = max((node for node in nodes if node and name.startswith(node)), key=len, default="")
        prefix = f"TRAINER.{node}."
        return {
            key.removeprefix(prefix): value
            for key, value in self.settings.items()
            if node and key.startswith(prefix)
        }


def log_files(folder: Path) -> list[Path]:
    """``log.txt`` and the ``log.txt-<time>`` of later launches, oldest first."""
    return sorted(path for path in folder.glob("log.txt*") if path.is_file())


def read_logs(folder: Path, test_log: bool = False) -> Log | None:
    """The latest log in a folder that reached its end and has a result; None if none did.

    Args:
        test_log: the logs are of evaluations, which end with a result, not of trainings. A log
            with ``eval_only: True`` among its arguments always counts as an evaluation.
    """
    for path in reversed(log_files(folder)):
        log = parse_log(path.read_text(encoding="utf-8", errors="replace").splitlines(), test_log)
        if log.finished and (log.values or log.groups):
            return log
    return None


def parse_log(lines: Iterable[str], test_log: bool = False) -> Log:
    """The last launch in the lines of a log; results count after the line that ends training."""
    log, head, path = Log(), "", []
    for line in lines:
        line = line.rpartition("\r")[2]  # drop a progress bar
        text = line.strip()
        if text in HEADS:
            log = Log(log.settings if (head, text) == HEADS else {})
            head, path = text, []
        elif text in _end_lines(log, test_log):
            log.values, log.groups, log.tasks, log.finished = {}, {}, {}, True
        elif log.finished:
            _add_result(log, text)
        elif head and (found := SETTING.fullmatch(line)):
            indent, key, value = found.groups()
            path = [(i, k) for i, k in path if i < len(indent)] + [(len(indent), key)]
            log.settings[".".join(k for _, k in path)] = (value or "").strip()
    return log


def _end_lines(log: Log, test_log: bool) -> tuple[str, ...]:
    evaluation = test_log or log.settings.get("eval_only") == "True"
    return (RESULT,) if evaluation else ENDS


def _add_result(log: Log, text: str) -> None:
    """Store the percentage of a line such as ``* accuracy: 87.49%``."""
    for pattern in (TASK, GROUP, VALUE):
        found = pattern.match(text)
        if found and is_percentage(percentage := _number(found[found.lastindex])):
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
