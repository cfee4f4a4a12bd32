"""The tasks of a suite that ``DATASET.SUBSAMPLE_TASKS`` names."""

from __future__ import annotations

import re

from dassl.utils import UserError, unknown_name


def choose_tasks(choice: str, count: int) -> list[int]:
    """Numbers of the tasks that a choice names, of ``count``.

    Args:
        choice: all, task<i>, task<i>+<j>+..., not_task<i> (all others), not_task<i>+<j>, base (the
            first half, rounded up) or new (the rest).

    Raises:
        UserError: another choice, a task that does not exist, or no task is left.
    """
    half = (count + 1) // 2
    named = {"all": range(count), "base": range(half), "new": range(half, count)}
    match = re.fullmatch(r"(not_)?task(\d+(?:\+\d+)*)", choice, re.ASCII)
    numbers = set(map(int, match[2].split("+"))) if match else set()
    if match and max(numbers) < count:
        left_out = bool(match[1])
        chosen = [i for i in range(count) if (i in numbers) != left_out]
    elif choice in named:
        chosen = list(named[choice])
    else:
        last = f"task0 to task{count - 1}" if count > 1 else "task0"
        known = ["all", "base", "new", last, "task<i>+<j>", "not_task<i>"]
        raise unknown_name("DATASET.SUBSAMPLE_TASKS", choice, known)
    if not chosen:
        raise UserError(
            f"DATASET.SUBSAMPLE_TASKS is {choice}, which leaves no task of {count}; take all"
        )
    return chosen
