"""Prompts as embeddings: what prompt learners make and text towers encode."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import torch

from ._errors import CLIPError
from ._layout import index_rows


@dataclass
class Prompts:
    """Embeddings of n prompts as a prefix shared within a group and a suffix per prompt.

    Keep the index tensors on the CPU: reading them from a GPU would synchronize.

    Args:
        prefix: (G, P, d) embeddings at positions 0 .. P-1, first ``start`` that all groups have.
        suffix: (r, S, d) embeddings from position P to EOT, the end token, padded after it.
        group: (n,) row of ``prefix`` of each prompt.
        eot: (r,) position of EOT in ``suffix``.
        suffix_index: (n,) row of ``suffix`` of each prompt; None: prompt i has row i.
        deep: contexts of later blocks, (G, m, d) by index of the block: before block i the hidden
            states of the m tokens from ``start``, all in the prefix, become ``deep[i]``.
        start: the number of tokens before the context: 1, SOS, or as many as the tokenizer has.
    """

    prefix: torch.Tensor
    suffix: torch.Tensor
    group: torch.Tensor
    eot: torch.Tensor
    suffix_index: torch.Tensor | None = None
    deep: dict[int, torch.Tensor] = field(default_factory=dict)
    start: int = 1

    def with_groups(self, used: torch.Tensor, group: torch.Tensor) -> Prompts:
        """The prompts with the prefixes ``used`` (k,) alone, which ``group`` (n,) refers to."""
        deep = {i: index_rows(ctx, used) for i, ctx in self.deep.items()}
        return replace(self, prefix=index_rows(self.prefix, used), group=group, deep=deep)

    def check_deep(self, layers: int) -> None:
        """Refuse deep contexts that a tower of so many layers cannot take.

        Raises:
            CLIPError: a block that the tower lacks, or a context that is longer than the prefix.
        """
        room = self.prefix.shape[1] - self.start
        for i, ctx in self.deep.items():
            if not 0 < i < layers:
                raise CLIPError(
                    f"a deep context before block {i}: this text tower has the blocks 0 to "
                    f"{layers - 1}, and those before block 0 are the prompt itself"
                )
            if ctx.shape[1] > room or len(ctx) != len(self.prefix):
                raise CLIPError(
                    f"deep contexts of shape {tuple(ctx.shape[:2])} for {len(self.prefix)} "
                    f"prefixes with {room} tokens after the first {self.start}"
                )


def suffix_lengths(prompts: Prompts) -> torch.Tensor:
    """Tokens (n,) of each suffix, EOT included; on the CPU."""
    length = prompts.eot.cpu() + 1
    return length if prompts.suffix_index is None else length[prompts.suffix_index.cpu()]


def overwrite_contexts(
    x: torch.Tensor, context: torch.Tensor, length: int, start: int
) -> torch.Tensor:
    """Rows x (N, d), which begin with G prefixes, with ``context`` (G, m, d) in these.

    Args:
        start: tokens of a prefix before its context.
        length: P, rows of a prefix.
    """
    starts = start + length * torch.arange(len(context), device=x.device)  # (G,)
    rows = starts[:, None] + torch.arange(context.shape[1], device=x.device)
    return x.index_copy(0, rows.flatten(), context.flatten(0, 1).to(x.dtype))
