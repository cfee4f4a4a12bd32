"""What ``DATASET.COLUMNS`` says of the columns of a table: multi-label, or ordinal."""

from __future__ import annotations

from dataclasses import dataclass, replace

from dassl.config import CfgNode
from dassl.data.label_kinds import AUTO, KINDS, MultiLabel, Ordinal, SingleLabel
from dassl.utils import UserError, shorten_list, unknown_name

from .splits import Split, is_text

KEYS = {  # of an entry, by its KIND
    "single_label": ("NAME", "KIND"),
    "multi_label": ("NAME", "KIND", "SEPARATOR", "CLASSES", "THRESHOLD"),
    "ordinal": ("NAME", "KIND", "CLASSES"),
}


@dataclass(frozen=True)
class LabelColumn:
    """A column of labels.

    Args:
        name: of the column.
        kind: a key of :data:`~dassl.data.label_kinds.KINDS`.
        separator: between the classes in a field of a multi-label column; a field that holds
            nothing else says that the image has none of the classes.
        classes: all classes, in their order; empty: those that occur, sorted.
        threshold: probability from which a class of a multi-label column is predicted.
    """

    name: str
    kind: str = "single_label"
    separator: str = ";"
    classes: tuple[str, ...] = ()
    threshold: float = 0.5

    def classes_in(self, text: str) -> tuple[str, ...]:
        """The classes that a field names."""
        if self.kind != "multi_label":
            return (text,)
        names = (" ".join(name.split()) for name in text.split(self.separator))
        return tuple(dict.fromkeys(name for name in names if name))

    def check_field(self, text: str, where: str) -> None:
        """Refuse a field with a class that is not one of :attr:`classes`.

        Args:
            where: the place of the field in the table.
        """
        for name in self.classes_in(text):
            if self.classes and name not in self.classes:
                problem = unknown_name(f"class of {self.name!r}", name, self.classes)
                raise UserError(f"{where}: {problem}")

    def check_fields(self, texts: set[str], where: object) -> None:
        """Refuse a column whose fields do not fit its kind.

        Args:
            texts: all fields of the column that are not empty.
            where: the table, for the message.
        """
        if self.kind != "multi_label":
            return
        if not any(self.separator in text for text in texts):
            raise UserError(
                f"{where}: no field of the multi_label column {self.name!r} has its separator "
                f"{self.separator!r}, so each image has one class: give the right SEPARATOR, or "
                "leave KIND out"
            )
        found = {name for text in texts for name in self.classes_in(text)}
        if never := [name for name in self.classes if name not in found]:
            raise UserError(
                f"{where}: no image of the column {self.name!r} has {shorten_list(never)}; take it "
                "out of CLASSES, or label some images"
            )

    def make_kind(
        self, texts: tuple[str, ...], optim: CfgNode
    ) -> tuple[SingleLabel, tuple[str, ...]]:
        """The kind of label and the class names of a task whose labels are these fields.

        Args:
            optim: the values of the losses.
        """
        if self.kind == "ordinal":
            return Ordinal(optim.ORDINAL_WEIGHT), texts
        if self.kind == "single_label":
            return SingleLabel(), texts
        names = self.classes or tuple(sorted({n for text in texts for n in self.classes_in(text)}))
        sets = (sorted(names.index(n) for n in self.classes_in(text)) for text in texts)
        return multi_label(tuple(map(tuple, sets)), optim, self.threshold), names

    def put_in_order(self, split: Split, t: int) -> None:
        """Number the labels of task ``t`` by the order of the classes, if it is ordinal."""
        if self.kind != "ordinal":
            return
        found = split.classnames[t]
        if strange := sorted(set(found) - set(self.classes)):
            raise UserError(
                f"the split has classes of {self.name!r} that are not in its CLASSES: "
                f"{shorten_list(strange)}; add them, or delete the file of the split"
            )
        for part in split.parts:
            part[:] = [
                replace(d, label=self.classes.index(found[d.label])) if d.task == t else d
                for d in part
            ]
        split.classnames[t] = self.classes


def multi_label(
    sets: tuple[tuple[int, ...], ...], optim: CfgNode, threshold: float = 0.5
) -> MultiLabel:
    """A multi-label kind with the configuration's values of the loss.

    A bias of "auto" is set later; see ``dassl/engine/label_bias.py``.
    """
    bias = 0.0 if optim.LOGIT_BIAS == AUTO else optim.LOGIT_BIAS
    return MultiLabel(sets, optim.MULTI_LABEL_LOSS, optim.POSITIVE_WEIGHT, bias, threshold)


def label_columns(cfg: CfgNode) -> dict[str, LabelColumn]:
    """The entries of ``DATASET.COLUMNS`` by the name of their column.

    Raises:
        UserError: an entry with an unknown key, kind or value, or two of one column.
    """
    columns: dict[str, LabelColumn] = {}
    for i, entry in enumerate(cfg.DATASET.COLUMNS):
        column = _read_entry(entry, f"DATASET.COLUMNS[{i}]")
        if column.name in columns:
            raise UserError(f"DATASET.COLUMNS[{i}]: {column.name!r} has an entry already")
        columns[column.name] = column
    return columns


def _read_entry(entry: object, where: str) -> LabelColumn:
    if not isinstance(entry, dict) or not is_text(entry.get("NAME")):
        raise UserError(
            f"{where} must hold NAME, a column of labels, and KIND, as in  {{NAME: mood, KIND: "
            f"multi_label, SEPARATOR: ';'}}, but is {entry!r}"
        )
    kind = entry.get("KIND", "single_label")
    if not isinstance(kind, str) or kind not in KINDS:
        raise unknown_name(f"KIND of {where}", str(kind), KINDS)
    for key in entry:
        if key not in KEYS[kind]:
            raise unknown_name(f"key of {where}, which is {kind}", str(key), KEYS[kind])
    classes = entry.get("CLASSES", ())
    if not isinstance(classes, (list, tuple)):
        raise UserError(f"CLASSES of {where} must be a list of names, but is {classes!r}")
    names = tuple(" ".join(str(name).split()) for name in classes)
    if len(set(names)) < len(names) or not all(names):
        raise UserError(f"CLASSES of {where} must be names, no two alike, but are {list(classes)}")
    if kind == "ordinal" and len(names) < 2:
        raise UserError(
            f"{where} is ordinal, so it needs CLASSES, the list of all classes in their order"
        )
    column = LabelColumn(" ".join(entry["NAME"].replace("_", " ").split()), kind, classes=names)
    separator = entry.get("SEPARATOR", column.separator)
    if not isinstance(separator, str) or not separator.strip():
        raise UserError(
            f"SEPARATOR of {where} must be a text between two classes, such as ';', but is "
            f"{separator!r}"
        )
    threshold = entry.get("THRESHOLD", column.threshold)
    if not isinstance(threshold, float) or not 0 < threshold < 1:
        raise UserError(
            f"THRESHOLD of {where} must be a number between 0 and 1, but is {threshold!r}"
        )
    return replace(column, separator=separator.strip(), threshold=threshold)
