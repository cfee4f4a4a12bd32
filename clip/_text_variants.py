"""Text towers other than open_clip's usual one: with CoCa's class token, and of Hugging Face."""

from __future__ import annotations

from pathlib import Path
from typing import NoReturn

import torch
from torch import nn

from ._blocks import run_blocks
from ._errors import CLIPError
from ._layout import index_rows
from ._prompts import Prompts
from ._tokenizers import Tokenizer
from .text import TextTower


def make_text_tower(source: nn.Module, tokenizer: Tokenizer | None, config: dict) -> TextTower:
    """The frozen text tower of an open_clip model with this configuration.

    Raises:
        CLIPError: the tower cannot take embeddings.
    """
    text = getattr(source, "text", source)
    if hasattr(text, "pooler"):
        return HubTextTower(source, tokenizer, config["text_cfg"]["context_length"])
    if getattr(text, "cls_emb", None) is not None:
        return ClassTokenTower(source, tokenizer)
    return TextTower(source, tokenizer)


class ClassTokenTower(TextTower):
    """CoCa's text tower: causal, and read at a class token that stands after the padding.

    The class token attends to the words alone. In the released models, whose mask is shifted by
    one, it attends to the first padding token too, and not to itself.
    """

    def __init__(self, clip_model: nn.Module, tokenizer: Tokenizer | None = None):
        super().__init__(clip_model, tokenizer)
        text = getattr(clip_model, "text", clip_model)
        self.cls_emb, self.shifted = text.cls_emb, not getattr(text, "correct_cls_mask", False)
        self.heads = self.transformer.resblocks[0].attn.num_heads
        self.context_length -= 1  # the last position is the class token's
        self.packed = False
        self.requires_grad_(False)

    @property
    def ignores_padding(self) -> bool:
        """False: the first padding token is attended to."""
        return False

    def _encode_plain(self, prompts: Prompts) -> torch.Tensor:
        x, last = self._assemble(prompts)  # (n, L, d), (n,)
        length = last + 1  # (n,)
        size = min(int(length.max()) + 1, self.context_length)  # what follows is not attended to
        at = torch.arange(size + 1, device=x.device)
        at[-1] = self.context_length  # positions of the tokens, then of the class token
        x = torch.cat([x[:, :size], self.cls_emb.to(x.dtype).expand(len(x), 1, -1)], 1)
        x = x + self.positional_embedding[at].to(x.dtype)
        if self.shifted:
            visible = at <= length[:, None]  # (n, size + 1)
        else:
            visible = (at < length[:, None]) | (at == self.context_length)
        visible = visible[:, None] & (at <= at[:, None])  # (n, queries, keys)
        mask = x.new_zeros(visible.shape).masked_fill(~visible, -torch.inf)
        mask = mask.repeat_interleave(self.heads, 0)
        deep = {i: index_rows(ctx, prompts.group) for i, ctx in prompts.deep.items()}
        x = run_blocks(self.transformer, x, mask, deep, prompts.start)
        return self._project(self.ln_final(x[:, -1]))


class HubTextTower(TextTower):
    """A Hugging Face model as open_clip uses it: run on embeddings, padding masked, then pooled.

    Raises:
        CLIPError: the model does not take embeddings.
    """

    def __init__(self, clip_model: nn.Module, tokenizer: Tokenizer, context_length: int):
        nn.Module.__init__(self)
        text = clip_model.text
        self.model, self.pooler, self.text_projection = text.transformer, text.pooler, text.proj
        self.token_embedding = self.model.get_input_embeddings()
        self.tokenizer, self._out_dim = tokenizer, text.output_dim
        most = getattr(text.config, "max_position_embeddings", context_length)
        self.context_length = min(context_length, most)
        self.pool, self.chunk, self.graphs = "pooler", 0, None
        self.packed, self.tiles = False, None
        self.requires_grad_(False)
        self.train(False)

    @property
    def ignores_padding(self) -> bool:
        """True: padding is masked."""
        return True

    @property
    def out_dim(self) -> int:
        """e, the width of text features."""
        return self._out_dim

    @property
    def dtype(self) -> torch.dtype:
        """Dtype of the model."""
        return self.token_embedding.weight.dtype

    @property
    def device(self) -> torch.device:
        """Device of the weights."""
        return self.token_embedding.weight.device

    @property
    def layers(self) -> int:
        """Number of blocks."""
        return self.model.config.num_hidden_layers

    def save_config(self, folder: Path) -> None:
        """Write the model's configuration, as transformers reads it."""
        self.model.config.save_pretrained(folder)

    def encode(self, prompts: Prompts) -> torch.Tensor:
        """Text features (n, e), not normalised, in the tower's dtype.

        Raises:
            CLIPError: a prompt is longer than the context, or has deep contexts.
        """
        if prompts.deep:
            self.refuse_deep()
        return super().encode(prompts)

    def refuse_deep(self) -> NoReturn:
        """Refuse contexts in later blocks.

        Raises:
            CLIPError: always.
        """
        raise CLIPError(
            "contexts in later blocks are not supported in a text tower of Hugging Face "
            f"({type(self.model).__name__}); choose a backbone with open_clip's own"
        )

    def _encode_plain(self, prompts: Prompts) -> torch.Tensor:
        x, last = self._assemble(prompts)  # (n, L, d), (n,)
        mask = (torch.arange(x.shape[1], device=x.device) <= last[:, None]).long()
        out = self.model(inputs_embeds=x, attention_mask=mask)
        return self._project(self.pooler(out, mask))

    def _project(self, x: torch.Tensor) -> torch.Tensor:
        return self.text_projection(x)
