"""Prompts as embeddings: what prompt learners make and text towers encode."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import torch

from ._errors import CLIPError
from ._layout import index_rows

CONTEXT_START = 1  # position of the first context token: SOS stands before it


@dataclass
class Prompts:
    """Embeddings of n prompts as a prefix shared within a group and a suffix per prompt.

    Keep the index tensors on the CPU: reading them from a GPU would synchronize.

    Args:
        prefix: (G, P, d) embeddings at positions 0 .. P-1; the first, SOS, is the same in all.
        suffix: (r, S, d) embeddings from position P to EOT, padded after it.
        group: (n,) row of ``prefix`` of each prompt.
        eot: (r,) position of EOT in ``suffix``.
        suffix_index: (n,) row of ``suffix`` of each prompt; None: prompt i has row i.
        deep: contexts of later blocks, (G, m, d) by index of the block: before block i the hidden
            states at positions 1 .. m, all in the prefix, are overwritten by ``deep[i]``.
    """

    prefix: torch.Tensor
    suffix: torch.Tensor
    group: torch.Tensor
    eot: torch.Tensor
    suffix_index: torch.Tensor | None = None
    deep: dict[int, torch.Tensor] = field(default_factory=dict)

    def with_groups(self, used: torch.Tensor, group: torch.Tensor) -> Prompts:
        """The prompts with the prefixes ``used`` (k,) alone, which ``group`` (n,) refers to."""
        deep = {i: index_rows(ctx, used) for i, ctx in self.deep.items()}
        return replace(self, prefix=index_rows(self.prefix, used), group=group, deep=deep)

    def check_deep(self, layers: int) -> None:
        """Refuse deep contexts that a tower of so many layers cannot take.

        Raises:
            CLIPError: a block that the tower lacks, or a context that is longer than the prefix.
        """
        room = self.prefix.shape[1] - CONTEXT_START
        for i, ctx in self.deep.items():
            if not 0 < i < layers:
                raise CLIPError(
                    f"a deep context before block {i}: this text tower has the blocks 0 to "
                    f"{layers - 1}, and those before block 0 are the prompt itself"
                )
            if ctx.shape[1] > room or len(ctx) != len(self.prefix):
                raise CLIPError(
                    f"deep contexts of shape {tuple(ctx.shape[:2])} for {len(self.prefix)} "
                    f"prefixes with {room} tokens after SOS"
                )


def suffix_lengths(prompts: Prompts) -> torch.Tensor:
    """Tokens (n,) of each suffix, EOT included; on the CPU."""
    length = prompts.eot.cpu() + 1
    return length if prompts.suffix_index is None else length[prompts.suffix_index.cpu()]


def overwrite_contexts(x: torch.Tensor, context: torch.Tensor, length: int) -> torch.Tensor:
    """Rows x (N, d) with ``context`` (G, m, d) after each SOS of the G prefixes they begin with.

    Args:
        length: P, rows of a prefix.
    """
    starts = CONTEXT_START + length * torch.arange(len(context), device=x.device)  # (G,)
    rows = starts[:, None] + torch.arange(context.shape[1], device=x.device)
    return x.index_copy(0, rows.flatten(), context.flatten(0, 1).to(x.dtype))
