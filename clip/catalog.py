"""The architectures of open_clip in a table that is read without importing torch.

``python -m clip.catalog`` writes the table anew, for the installed version of open_clip.
"""

from __future__ import annotations

import csv
from dataclasses import dataclass, fields
from pathlib import Path

from ._openai import OPENAI_ARCHS

TABLE = Path(__file__).with_name("catalog.csv")


@dataclass(frozen=True)
class Entry:
    """An architecture.

    Attributes:
        parameters: of both towers, in millions; "" for towers whose size is not in open_clip.
        width: e, of the joint embeddings.
        context: the most tokens of a prompt.
        image: height and width of images, in pixels.
        tokenizer: "CLIP's BPE", or the repository of the hub that has it.
        packed: "packed" if token positions are computed once, else "full length" or "masked".
        tags: names of published weights.
    """

    arch: str
    parameters: str
    width: int
    context: int
    image: str
    tokenizer: str
    packed: str
    tags: tuple[str, ...]


def read_catalog() -> list[Entry]:
    """The architectures by name, without those that are not supported."""
    with open(TABLE, encoding="utf-8", newline="") as file:
        return [
            Entry(
                **{
                    **row,
                    "width": int(row["width"]),
                    "context": int(row["context"]),
                    "tags": tuple(row["tags"].split()),
                }
            )
            for row in csv.DictReader(file)
        ]


def describe_backbones() -> list[str]:
    """Lines: OpenAI's names and open_clip's architectures, with what distinguishes them."""
    entries = {entry.arch: entry for entry in read_catalog()}
    head = ("name", "parameters", "width", "context", "image", "prompts", "tokenizer")
    rows = [
        (name, size, "64", "77", "32 x 32", "packed", "CLIP's BPE")
        for name, size in (("tiny", "5 M"), ("tiny-vit", "3 M"))
    ]
    rows += [(name, *_cells(entries[arch])) for name, arch in OPENAI_ARCHS.items()]
    for entry in entries.values():
        rows += [(f"{entry.arch}/{tag}", *_cells(entry)) for tag in entry.tags if tag != "openai"]
    widths = [max(map(len, column)) for column in zip(head, *rows, strict=True)]
    lines = [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in (head, *rows)
    ]
    untagged = [entry.arch for entry in entries.values() if not entry.tags]
    return [*lines, f"without published weights (arch/random, a file): {', '.join(untagged)}"]


def _cells(entry: Entry) -> tuple[str, ...]:
    size = f"{entry.parameters} M" if entry.parameters else "-"
    numbers = size, str(entry.width), str(entry.context), entry.image
    return *numbers, entry.packed, entry.tokenizer


def make_catalog() -> list[Entry]:
    """The table's contents for the installed open_clip."""
    import open_clip

    from . import _archs

    names = [arch for arch in open_clip.list_models() if _archs.unsupported_arch(arch) is None]
    return [make_entry(arch) for arch in names]


def make_entry(arch: str) -> Entry:
    """The row of an architecture; its towers are built without memory."""
    import open_clip

    from . import _archs

    config = _archs.arch_config(arch)
    text, size = config["text_cfg"], config["vision_cfg"]["image_size"]
    height, width = (size, size) if isinstance(size, int) else size
    packed = "full length" if text["no_causal_mask"] or text["embed_cls"] else "packed"
    return Entry(
        arch=arch,
        parameters="" if text["hf_model_name"] else _count_parameters(config),
        width=config["embed_dim"],
        context=text["context_length"],
        image=f"{height} x {width}",
        tokenizer=text["hf_tokenizer_name"] or "CLIP's BPE",
        packed="masked" if text["hf_model_name"] else packed,
        tags=tuple(open_clip.list_pretrained_tags_by_model(arch)),
    )


def _count_parameters(config: dict) -> str:
    """Millions of parameters of both towers."""
    import torch

    from . import _archs

    with torch.device("meta"):
        model = _archs.build(config)
    total = sum(p.numel() for name, p in model.named_parameters() if "text_decoder" not in name)
    return f"{total / 1e6:.0f}"


def write_catalog() -> None:
    """Write the table of the installed open_clip."""
    names = [field.name for field in fields(Entry)]
    with open(TABLE, "w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(names)
        for entry in make_catalog():
            cells = [getattr(entry, name) for name in names]
            writer.writerow([" ".join(x) if isinstance(x, tuple) else x for x in cells])


if __name__ == "__main__":
    write_catalog()
