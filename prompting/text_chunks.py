"""How much text a training step encodes, and in which chunks (``MODEL.TEXT_CHUNK``).

The unit is the row: one token position of one prompt that the text tower computes.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator

import torch

from clip import TextEncoder
from clip.text import Prompts, TextTower
from dassl.utils import UserError, distributed, free_memory, lockstep, size_in_words
from dassl.utils.threads import choose_threads

from .encoder_wrapper import EncoderWrapper

SHARE = 0.5  # of the free memory that text may use
MIN_CHUNK = 256  # rows; smaller chunks spend their time on launching kernels
PROBE = 4096  # rows per chunk while counting, which stores no activations


class RowCounter(EncoderWrapper):
    """Counts the rows that a text tower computes."""

    def __init__(self, tower: TextTower):
        super().__init__(tower)
        self.tower, self.rows, self.prompts = tower, 0, 0

    def encode(self, prompts: Prompts) -> torch.Tensor:
        """Text features (n, e)."""
        if len(prompts.group):
            self.rows += self.tower.count_rows(prompts)
            self.prompts += len(prompts.group)
        return self.tower.encode(prompts)


def parse_chunk(value: str) -> int | None:
    """The number of rows in MODEL.TEXT_CHUNK; None for auto.

    Raises:
        UserError: neither auto nor a whole number of 0 or more.
    """
    if value == "auto":
        return None
    if not value.isdigit():
        raise UserError(
            f"MODEL.TEXT_CHUNK is auto, 0 (no limit) or a number of token positions; got {value!r}"
        )
    return int(value)


class ChunkedText:
    """A run's text tower; its chunk size is chosen in the first training step.

    Args:
        chunk: rows per chunk, 0 for no limit; None chooses by the free memory.

    Attributes:
        tower: the tower with the chosen chunk size.
        encoder: what the run encodes text with: ``tower``, or its counter inside
            :meth:`counting`.
        chunked: whether the text of a step takes more than one chunk.
        threads: that a resumed training used before it was stopped; 0: they are chosen.
    """

    def __init__(self, tower: TextTower, chunk: int | None):
        self.chunk, self.planned, self.chunked, self.threads = chunk, False, False, 0
        self.tower = tower.with_chunk(chunk or 0)
        self.encoder: TextEncoder = self.tower

    @property
    def repeating(self) -> bool:
        """Whether every step should encode the same prompts.

        CUDA graphs are then replayed, and the layout of several runs' prompts is found again.
        """
        return self.tower.graphed or lockstep.current() is not None

    @contextlib.contextmanager
    def counting(self) -> Iterator[RowCounter]:
        """Count the rows of the text that the block encodes through ``encoder``."""
        self.encoder = counter = RowCounter(self.tower.with_chunk(PROBE))
        try:
            yield counter
        finally:
            self.encoder = self.tower

    @torch.no_grad()
    def plan(self, forward: Callable) -> None:
        """Choose the chunk size in the first call, and log how much memory text will use.

        On a CPU the number of threads is chosen too.

        Args:
            forward: encodes the text of a training step; called a few times, without gradients.
        """
        if self.planned:
            return
        device = self.tower.device
        with torch.random.fork_rng([device] if device.type == "cuda" else []):
            with self.counting() as counter:
                forward()
            if self.threads:  # other threads would add up in another order
                torch.set_num_threads(self.threads)
            elif device.type == "cpu" and distributed.world_size() == 1:
                with self.counting():
                    choose_threads(forward)
        torch.clear_autocast_cache()  # torch 2.6 would reuse weights cast without gradients
        # all processes need the same chunks: recomputing one may wait for the other processes
        rows = distributed.largest(counter.rows)
        free = -distributed.largest(-free_memory(device))
        chunk = self.chunk
        if chunk is None:
            chunk = fitting_chunk(rows, self.tower.row_bytes, free)
        self.encoder = self.tower = self.tower.with_chunk(chunk)
        self.planned, self.chunked = True, 0 < chunk < rows
        # one run keeps a GPU busy, and joined prompts synchronize with it (docs/speed.md)
        alone = self.chunked or device.type == "cuda"
        lockstep.report_share(1.0 if alone else rows * self.tower.row_bytes / max(free, 1))
        if counter.rows:
            print(describe(counter, chunk, free))


def fitting_chunk(rows: int, row_bytes: int, free: int) -> int:
    """Rows per chunk for a step of ``rows``; 0 if all of them fit ``free`` bytes at once.

    Chunks are a power of two, so that small changes of the free memory do not change them.
    """
    if rows * row_bytes <= SHARE * free:
        return 0
    fitting = max(MIN_CHUNK, int(SHARE * free / 2 / row_bytes))  # half is left for their inputs
    return 1 << (fitting.bit_length() - 1)


def describe(counter: RowCounter, chunk: int, free: int) -> str:
    """The log line on a step's text."""
    row_bytes = counter.tower.row_bytes
    pieces = "all at once"
    if chunk and chunk < counter.rows:
        size = size_in_words(chunk * row_bytes)
        pieces = f"in chunks of {chunk} rows ({size}), recomputed in backward"
    size = size_in_words(counter.rows * row_bytes)
    return (
        f"Text of a step: {counter.prompts} prompts, {counter.rows} rows, about {size} of "
        f"{size_in_words(free)} free memory; {pieces} (MODEL.TEXT_CHUNK)"
    )
