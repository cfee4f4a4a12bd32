"""Comparison of a stored split with the data as they are now."""

from __future__ import annotations

from pathlib import Path

from dassl.utils import UserError, counted, shorten_list

from .splits import Split


def compare_splits(stored: Split, fresh: Split, path: Path, name: str) -> None:
    """Refuse a stored split whose tasks, classes or labels differ from the data; report new images.

    Images are compared by class name and task name. Images that were added after the split was
    made are left out of it.

    Args:
        fresh: the same data, read again.
        path: the file of ``stored``.
        name: of the dataset, for the log.

    Raises:
        UserError: a task or class was added, or a task, class or image was removed or renamed.
    """
    remedy = "delete that file to divide all images anew (and split_fewshot/ beside it, if any)"
    if set(stored.tasknames) != set(fresh.tasknames):
        raise UserError(
            f"{path} has the tasks {', '.join(stored.tasknames) or '(unnamed)'}, but the data "
            f"now have {', '.join(fresh.tasknames) or '(unnamed)'}; {remedy}"
        )
    before, now = stored.names_by_image(), fresh.names_by_image()
    if gone := sorted(path for path, _ in before.keys() - now.keys()):
        raise UserError(
            f"{path} has {len(gone)} images that are no longer listed: {shorten_list(gone)}; list "
            f"them again, or {remedy}"
        )
    changed = sorted(key for key, classname in before.items() if now[key] != classname)
    if changed:
        key = changed[0]
        raise UserError(
            f"{path} has other class names for {len(changed)} of {len(before)} images than the "
            f"data have now, such as {key[0]}: {before[key]!r} there, {now[key]!r} now; {remedy}"
        )
    new_classes = fresh.classes_by_task()
    for task, classes in stored.classes_by_task().items():
        if added := sorted(new_classes[task] - classes):
            raise UserError(
                f"{path} lacks {len(added)} classes that the data now have: {shorten_list(added)}; "
                f"{remedy}"
            )
    if new := sorted(path for path, _ in now.keys() - before.keys()):
        print(
            f"{name}: left out, since not in {path}: {counted(len(new), 'image')}, "
            f"{shorten_list(new)}; {remedy}"
        )
