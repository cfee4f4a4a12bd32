"""Groups of tasks that help each other, from the gradients that joint runs recorded."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import yaml

from dassl.config.node import read_yaml
from dassl.config.protocols import TASK_GROUPS
from dassl.utils import UserError, atomic_path
from results.read import find_runs
from results.task_relations import FILE, Matrix, mean_matrix, relations_of


def group_tasks(cosines: Matrix, count: int) -> list[list[int]]:
    """Tasks in ``count`` groups, or as many as there are tasks, by average linkage of 1 - cosine.

    Args:
        cosines: (T, T) of the tasks' gradients, all known.

    Returns:
        Numbers of tasks, each group sorted, in the order of their first tasks.
    """
    import numpy as np
    from scipy.cluster.hierarchy import cut_tree, linkage
    from scipy.spatial.distance import squareform

    known = np.array(cosines, dtype=float)
    distance = 1 - (known + known.T) / 2
    np.fill_diagonal(distance, 0)
    tree = linkage(squareform(distance, checks=False), method="average")
    # not fcluster, whose number of groups is smaller with SciPy 1.11 than with later versions
    labels = cut_tree(tree, min(count, len(known)))[:, 0]
    groups = [[t for t, label in enumerate(labels) if label == g] for g in dict.fromkeys(labels)]
    return sorted(groups)


def write_groups(sweep: str | Path, recorded: str | Path, count: int, out: str | Path) -> str:
    """Write a sweep's YAML again, with groups that follow from recorded gradients.

    Args:
        sweep: a YAML with the protocol task_groups.
        recorded: a folder with joint runs that recorded gradients; with several methods or
            numbers of shots, the mean of their cosines counts.

    Returns:
        Lines on the groups and on the file.

    Raises:
        UserError: no run recorded gradients, or never those of two tasks in one batch, runs have
            other tasks, the YAML has another protocol, or ``out`` exists.
    """
    content, out = read_yaml(Path(sweep)), Path(out)
    if content.get("protocol") != TASK_GROUPS:
        raise UserError(
            f"--group-by writes groups for the protocol {TASK_GROUPS}, but {sweep} has "
            f"{content.get('protocol')!r}"
        )
    if out.exists():
        raise UserError(f"--out names {out}, which exists; choose another name")
    found = relations_of(find_runs(recorded))
    if not found:
        raise UserError(
            f"no complete run below {recorded} has a {FILE}: train jointly with "
            "TRAIN.TASK_GRADIENTS 1 or more"
        )
    tasks = found[0].tasks
    if other := next((each for each in found if each.tasks != tasks), None):
        raise UserError(
            f"the runs below {recorded} have other tasks: {', '.join(tasks)}; "
            f"{', '.join(other.tasks)}"
        )
    if not 2 <= count < len(tasks):
        raise UserError(
            f"--groups takes a number from 2 to {len(tasks) - 1}, fewer than the {len(tasks)} "
            f"tasks, but is {count}"
        )
    cosines = mean_matrix([each.gradients for each in found])
    _check_all_known(cosines, tasks, recorded)
    groups = group_tasks(cosines, count)
    head = f"# {sweep}, with groups from the gradients of the runs in {recorded}.\n"
    with atomic_path(out) as path:
        body = yaml.safe_dump({**content, "groups": groups}, sort_keys=False)
        path.write_text(head + body, encoding="utf-8")
    lines = [f"group {i}: {', '.join(tasks[t] for t in group)}" for i, group in enumerate(groups)]
    return "\n".join([*lines, f"sweep: {out}"])


def _check_all_known(cosines: Matrix, tasks: Sequence[str], recorded: str | Path) -> None:
    """Refuse cosines without a pair of tasks, as nothing says whether these belong together."""
    for t, row in enumerate(cosines):
        for u in range(t):
            if row[u] is None:
                raise UserError(
                    f"the runs below {recorded} recorded no cosine of {tasks[u]} and {tasks[t]}, "
                    "which were never in one recorded batch; train with a lower "
                    "TRAIN.TASK_GRADIENTS or a larger batch, and without RoundRobinTaskSampler"
                )
