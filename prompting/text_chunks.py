"""How many rows of text a training step holds, and whether they fit (``MODEL.TEXT_CHUNK``).

A row is one token position of one prompt that the text tower computes.
"""

from __future__ import annotations

from collections.abc import Callable

import torch

from clip.text import Prompts, TextTower
from dassl.utils import UserError, distributed, free_memory

SHARE = 0.5  # of the free memory that text may take
MIN_CHUNK = 256  # rows; with fewer, the time goes into starting kernels
PROBE = 4096  # rows at once while counting, which needs no gradients


class RowCounter:
    """A text tower that counts the rows it computes."""

    def __init__(self, tower: TextTower):
        self.tower, self.rows, self.prompts = tower, 0, 0

    def __getattr__(self, name: str):
        return getattr(self.tower, name)

    def encode(self, prompts: Prompts) -> torch.Tensor:
        """Text features (n, e)."""
        if len(prompts.group):
            self.rows += self.tower.count_rows(prompts)
            self.prompts += len(prompts.group)
        return self.tower.encode(prompts)


def parse_chunk(value: str) -> int | None:
    """The rows that MODEL.TEXT_CHUNK names; None for auto.

    Raises:
        UserError: neither auto nor a number from 0.
    """
    if value == "auto":
        return None
    if not value.isdigit():
        raise UserError(
            f"MODEL.TEXT_CHUNK is auto, 0 (no limit) or a number of token positions; got {value!r}"
        )
    return int(value)


class TextInChunks:
    """A run's text tower, whose chunk is chosen before its first step.

    Args:
        chunk: rows per chunk, 0 for no limit; None chooses.

    Attributes:
        short: whether a step's text goes through in more than one chunk.
    """

    def __init__(self, tower: TextTower, chunk: int | None):
        self.chunk, self.planned, self.short = chunk, False, False
        self.tower = tower.with_chunk(chunk or 0)

    @torch.no_grad()
    def plan(self, step: Callable) -> None:
        """Choose the chunk if that has not been done, and say what memory text will take.

        Args:
            step: encodes the text of a training step through ``tower``, whatever its method
                makes of it; called once, without gradients.
        """
        if self.planned:
            return
        tower, device = self.tower, self.tower.device
        self.tower = counter = RowCounter(tower.with_chunk(PROBE))
        with torch.random.fork_rng([device] if device.type == "cuda" else []):
            step()
        torch.clear_autocast_cache()  # torch 2.6 would reuse weights cast without gradients
        # all processes must do alike: what is computed again may wait for the others
        rows = distributed.largest(counter.rows)
        free = -distributed.largest(-free_memory(device))
        chunk = self.chunk
        if chunk is None:
            chunk = fitting_chunk(rows, tower.row_bytes, free)
        self.tower, self.planned = tower.with_chunk(chunk), True
        self.short = 0 < chunk < rows
        if counter.rows:
            print(describe(counter, chunk, free))


def fitting_chunk(rows: int, row_bytes: int, free: int) -> int:
    """Rows per chunk of a step of ``rows``; 0 if all of them fit ``free`` bytes at once.

    Chunks are a power of two, so that small changes of the free memory do not change them.
    """
    if rows * row_bytes <= SHARE * free:
        return 0
    fits = max(MIN_CHUNK, int(SHARE * free / 2 / row_bytes))  # half is left for their inputs
    return 1 << (fits.bit_length() - 1)


def describe(counter: RowCounter, chunk: int, free: int) -> str:
    """The line in the log."""
    each = counter.tower.row_bytes
    way = "all at once"
    if chunk and chunk < counter.rows:
        way = f"in chunks of {chunk} rows ({_size(chunk * each)}), computed again going back"
    return (
        f"Text of a step: {counter.prompts} prompts, {counter.rows} rows, about "
        f"{_size(counter.rows * each)} of {_size(free)} free memory; {way} (MODEL.TEXT_CHUNK)"
    )


def _size(n: float) -> str:
    return f"{n / 1e9:.2f} GB" if n >= 1e8 else f"{n / 1e6:.1f} MB"
