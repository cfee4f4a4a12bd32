"""``python -m datasets show``: a contact sheet, some images of each class with its name."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont, ImageOps

from dassl.data import DatasetBase, Datum
from dassl.data.wrapper import decode, read_bytes
from dassl.utils import atomic_path
from image_text import QuestionSpace

SIDE, GAP, LABEL, TITLE = 72, 4, 18, 30  # pixels
INK, GREY, PAPER = "#111111", "#666666", "#ffffff"


def contact_sheet(
    dataset: DatasetBase, path: Path, classes: int = 60, images: int = 4
) -> tuple[int, int]:
    """Write a PNG: for every task its name and classes, and of each class its first images.

    Training images are shown where there are any, so that no choice is based on test images.

    Args:
        classes: how many are shown at most, spread evenly over the tasks.
        images: how many of each class at most.

    Returns:
        The number of classes shown, and of all.
    """
    groups: dict[tuple[int, int], list[Datum]] = defaultdict(list)
    for item in dataset.train_x or dataset.test or ():
        for label in _classes(dataset, item):
            groups[item.task, label].append(item)
    sizes = dataset.space.sizes
    shown = _fair_shares(sizes, classes)
    columns = max(1, min(3, max(shown)))
    width = columns * (images * (SIDE + GAP) + 3 * GAP)
    rows = [-(-n // columns) for n in shown]
    height = sum(TITLE + n * (LABEL + SIDE + 2 * GAP) for n in rows)
    sheet = Image.new("RGB", (width + GAP, height + GAP), PAPER)
    top = 0
    for t, task in enumerate(dataset.space.tasks):
        title = f"{t}  {task.name}: {shown[t]} of {sizes[t]} classes"
        _write(sheet, title, (GAP, top + 8), 15, width, INK)
        top += TITLE
        for i in range(shown[t]):
            left = GAP + (i % columns) * (width // columns)
            y = top + (i // columns) * (LABEL + SIDE + 2 * GAP)
            _write(sheet, task.classnames[i], (left, y), 12, width // columns - 2 * GAP, GREY)
            if not groups[t, i]:
                _write(sheet, "(no training image)", (left, y + LABEL), 12, width, GREY)
            for j, item in enumerate(groups[t, i][:images]):
                picture = decode(read_bytes(item.impath)[0], item.impath)
                square = ImageOps.fit(picture, (SIDE, SIDE))
                sheet.paste(square, (left + j * (SIDE + GAP), y + LABEL))
        top += rows[t] * (LABEL + SIDE + 2 * GAP)
    with atomic_path(path) as temporary:
        sheet.save(temporary, format="PNG")
    return sum(shown), sum(sizes)


def _fair_shares(sizes: list[int], total: int) -> list[int]:
    """How many classes of each task to show: at least one, at most its size, ``total`` in sum."""
    shares = [1] * len(sizes)
    while sum(shares) < total and shares != sizes:
        for t, size in enumerate(sizes):
            if shares[t] < size and sum(shares) < total:
                shares[t] += 1
    return shares


def _write(sheet: Image.Image, text: str, at: tuple[int, int], size: int, room: int, ink) -> None:
    """Draw one line of text, cut to ``room`` pixels."""
    font, text = ImageFont.load_default(size), text.replace("_", " ")
    if font.getlength(text) > room:
        while text and font.getlength(f"{text}…") > room:
            text = text[:-1]
        text += "…"
    ImageDraw.Draw(sheet).text(at, text, fill=ink, font=font)


def _classes(dataset: DatasetBase, item: Datum) -> tuple[int, ...]:
    """The classes of an item within its task; of a question, its answer."""
    if isinstance(dataset.space, QuestionSpace):
        return (dataset.space.tasks[0].target[item.label],)
    return dataset.space.kinds[item.task].classes_of(item.label)
