"""The mean over tasks and the lines of the log, also for tasks that were trained one by one."""

from __future__ import annotations

from typing import Any

UNGROUPED = "ungrouped"


def summarize(tasks: list[dict[str, Any]]) -> dict[str, Any]:
    """The suite's value: ``{"metric", "value", "groups": {group: value}}``, in percent.

    Every mean is over tasks with equal weight; tasks without a value are left out. When the tasks
    belong to more than one group, the suite's own value is None: a mean over unlike groups
    misleads.
    """
    members: dict[str, list] = {}
    for task in tasks:
        members.setdefault(task["group"], []).append(task["value"])
    alike = len(members) <= 1
    return {
        "metric": "mean over tasks",
        "value": mean([task["value"] for task in tasks]) if alike else None,
        "groups": {
            group or UNGROUPED: mean(values)
            for group, values in members.items()
            if group or not alike
        },
    }


def mean(values: list[float | None]) -> float | None:
    """Mean of the values that are not None; None if there is none."""
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None


def format_report(
    tasks: list[dict[str, Any]], suite: dict[str, Any], per_task: bool = True
) -> list[str]:
    """Lines of the log for evaluated tasks.

    Args:
        tasks: ``id, name, group, metric, value, correct, total`` of each task; ``measures`` if its
            kind of label has more than the metric.
        suite: what :func:`summarize` gives for them.
        per_task: also a line per task.
    """
    lines = ["=> result", f"* total: {sum(task['total'] for task in tasks):,}"]
    grouped = len(suite["groups"]) > 1  # so that the suite has no value of its own
    if grouped:
        lines += [f"* overall_metric ({g}): {percent(v)}" for g, v in suite["groups"].items()]
    else:
        lines.append(f"* overall_metric: {percent(suite['value'])}")
    empty = [task["name"] for task in tasks if task["value"] is None]
    if empty:
        lines.append(f"* without test images, left out of the mean: {', '.join(empty)}")
    if per_task:
        lines.append("=> per-task result")
        lines += [
            f"* task: {task['id']} ({task['name']})\ttotal: {task['total']:,}\t"
            f"metric: {percent(task['value'])}{_measures(task)}"
            for task in tasks
        ]
        if not grouped:
            lines.append(f"* average: {percent(suite['value'])}")
    return lines


def _measures(task: dict[str, Any]) -> str:
    """What else is measured of a task, for its line; "" if nothing is."""
    found = task.get("measures", {})
    shown = [f"\t{name}: {'n/a' if v is None else f'{v:.3f}'}" for name, v in found.items()]
    if left_out := task.get("classes_without_positives"):
        shown.append(f"\tclasses without positive images, left out: {left_out}")
    if "mean_logit" in task:
        bias = f" + bias {task['bias']:.1f}" if "bias" in task else ""
        shown.append(f"\tmean logit: {task['mean_logit']:.1f}{bias}")
    return ("\t" + f"({task['metric']})" if found else "") + "".join(shown)


def percent(value: float | None) -> str:
    """A percentage as the log shows it."""
    return "n/a" if value is None else f"{value:.2f}%"
