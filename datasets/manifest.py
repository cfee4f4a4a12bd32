"""Manifest: a user's own images, listed in a table."""

from __future__ import annotations

from pathlib import Path

from dassl.data import DATASET_REGISTRY
from dassl.utils import UserError

from ._core.folders import is_image
from ._core.image_tables import ImageTable, checked_row, fields_of, names_of_columns, read_table

COLUMNS = ("path", "class", "task", "split")


@DATASET_REGISTRY.register()
class Manifest(ImageTable):
    """Your own images, listed in a CSV: path, class and, optionally, task and split.

    The table is ``DATASET.MANIFEST`` in the data folder; its first line names the columns, in any
    order, and paths are relative to the data folder. Tasks keep the order of their first rows;
    classes are sorted. ``split`` is train, val or test; without it each class of each task is
    divided 50/20/30. An image may have a row per task.
    """

    def rows_of(self, path: Path) -> list[dict[str, str]]:
        """path, class, task, split and place of every label in the table."""
        lines = read_table(path)
        if not lines:
            return []
        head = _head(*lines[0])
        named = ("path", "class", *(key for key in ("task", "split") if key in head))
        return [_row(head, named, fields, where) for fields, where in lines[1:]]


def _head(fields: list[str], where: str) -> list[str]:
    head = [name.lower() for name in names_of_columns(fields, where)]
    if not set(head) & set(COLUMNS) and any(map(is_image, head)):
        raise UserError(
            f"{where}: this looks like an image, so the table has no header; its first line must "
            "name the columns, such as  path,class"
        )
    if set(head) - set(COLUMNS) or not {"path", "class"} <= set(head) or len(set(head)) < len(head):
        raise UserError(
            f"{where}: the first line must name the columns path, class and, if wanted, task and "
            f"split, but is {','.join(fields)[:80]!r}"
        )
    return head


def _row(head: list[str], named: tuple[str, ...], fields: list[str], where: str) -> dict[str, str]:
    row = dict.fromkeys(COLUMNS, "") | fields_of(head, fields, where)
    return checked_row(row, named, where)
