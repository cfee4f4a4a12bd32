"""CLIP's frozen text tower, read over prompt embeddings instead of token ids."""

from __future__ import annotations

import copy
from dataclasses import dataclass

import torch
from torch import nn

from . import _chunks, _layout, _packed, _tiles
from ._blocks import causal_mask, run_blocks
from ._errors import CLIPError
from ._layout import index_rows, to_device
from .simple_tokenizer import SimpleTokenizer, shared_tokenizer, tokenize

PROMPTS_AT_ONCE = 2048  # more are encoded in parts: their embeddings alone could fill the memory
ROW_VALUES = 14  # activations kept per row, layer and channel, measured on RN50 and ViT-B towers


@dataclass
class Prompts:
    """n prompts in two pieces: the beginning that a group shares, and what each prompt adds.

    Keep the index tensors on the CPU: reading them from a GPU would synchronize.

    Args:
        prefix: (G, P, d) embeddings at positions 0 .. P-1, SOS first, which is one constant.
        suffix: (r, S, d) embeddings from position P on, up to EOT and padded behind it.
        group: (n,) row of ``prefix`` that each prompt begins with.
        eot: (r,) place of EOT in ``suffix``.
        suffix_index: (n,) row of ``suffix`` that each prompt ends with; None: prompt i has row i.
    """

    prefix: torch.Tensor
    suffix: torch.Tensor
    group: torch.Tensor
    eot: torch.Tensor
    suffix_index: torch.Tensor | None = None


class TextTower(nn.Module):
    """The text half of an open_clip model; it shares the model's weights and does not train.

    Where attention is causal and the feature is read at EOT (``causal``), nothing behind EOT
    matters and what a group of prompts shares is computed once. Other towers see every prompt
    padded to the context length, as open_clip pads it.

    ``chunk``: rows (token positions) whose activations are kept at once, about; longer batches go
    through in pieces that the backward pass computes again. 0: no limit.

    Args:
        clip_model: an open_clip ``CLIP`` or ``CustomTextCLIP``.
        tokenizer: a BPE tokenizer; the default suits every tower with CLIP's vocabulary.

    Raises:
        CLIPError: the tower cannot be fed with embeddings.
    """

    def __init__(self, clip_model: nn.Module, tokenizer: SimpleTokenizer | None = None):
        super().__init__()
        text = getattr(clip_model, "text", clip_model)
        masked = _check_tower(text)
        self.pool = getattr(text, "text_pool_type", getattr(text, "pool_type", "argmax"))
        self.eos_id = getattr(text, "text_eos_id", getattr(text, "eos_id", None))
        self.masked = masked
        self.transformer = text.transformer
        self.token_embedding = text.token_embedding
        self.positional_embedding = text.positional_embedding
        self.ln_final = text.ln_final
        self.text_projection = text.text_projection
        self.context_length = len(self.positional_embedding)
        self.tokenizer = tokenizer or shared_tokenizer()
        self.chunk = 0
        self.tiles: bool | None = None  # None: on a GPU
        self.packed = self.causal and all(map(_packed.is_plain, self.transformer.resblocks))
        self.requires_grad_(False)
        self.train(False)

    def train(self, mode: bool = True) -> TextTower:
        """Does nothing: a frozen tower stays in eval mode."""
        return super().train(False)

    @property
    def causal(self) -> bool:
        """Whether a prompt's feature depends on nothing behind its EOT."""
        return self.masked and self.pool in ("argmax", "eos")

    @property
    def width(self) -> int:
        """d, the width of token embeddings."""
        return self.token_embedding.weight.shape[1]

    @property
    def out_dim(self) -> int:
        """e, the width of text features."""
        if self.text_projection is None:
            return self.width
        if isinstance(self.text_projection, nn.Linear):
            return self.text_projection.out_features
        return self.text_projection.shape[1]

    @property
    def dtype(self) -> torch.dtype:
        """The type that the blocks compute in."""
        return self.transformer.resblocks[0].mlp.c_fc.weight.dtype

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.positional_embedding.device

    def tokenize(self, texts: list[str]) -> torch.Tensor:
        """Token ids (n, L) at the full context length: SOS, words, EOT, padding.

        Raises:
            CLIPError: a text has more tokens than fit.
        """
        return tokenize(texts, self.context_length, tokenizer=self.tokenizer).to(self.device)

    def eot(self, tokens: torch.Tensor) -> torch.Tensor:
        """(n,) place of EOT in token ids (n, L)."""
        if self.pool == "eos":
            return (tokens == self.eos_id).int().argmax(-1)
        return tokens.argmax(-1)

    def embed(self, tokens: torch.Tensor) -> torch.Tensor:
        """Token embeddings, (...) -> (..., d), without positions."""
        return self.token_embedding(tokens)

    @property
    def tiled(self) -> bool:
        """Whether rows are computed in the fewest kernels rather than with the least work."""
        return self.device.type == "cuda" if self.tiles is None else self.tiles

    @property
    def row_bytes(self) -> int:
        """About what the activations of one row take until its backward pass."""
        layers = len(self.transformer.resblocks)
        return ROW_VALUES * layers * self.width * self.positional_embedding.element_size()

    def with_chunk(self, rows: int) -> TextTower:
        """This tower, its weights shared, with another ``chunk``."""
        other = copy.copy(self)
        other.chunk = rows
        return other

    def count_rows(self, prompts: Prompts) -> int:
        """Rows (token positions) that :meth:`encode` runs through the blocks."""
        prompts = _layout.tidy(prompts) if self._packs(prompts) else prompts
        cost, begin = self._cost(prompts)
        return int(cost.sum()) + begin * len(prompts.prefix)

    def encode(self, prompts: Prompts) -> torch.Tensor:
        """Text features (n, e), not normalised, in the tower's dtype.

        Raises:
            CLIPError: a prompt is longer than the context.
        """
        if len(prompts.group) == 0:
            return prompts.suffix.new_zeros((0, self.out_dim), dtype=self.dtype)
        inside = self._encode_plain
        if self._packs(prompts):
            inside = self._encode_tiles if self.tiled else self._encode_packed
            prompts = prompts if self.tiled else _layout.tidy(prompts)
        return _chunks.run(inside, prompts, *self._cost(prompts), self.chunk)

    def encode_tokens(self, tokens: torch.Tensor) -> torch.Tensor:
        """Text features (n, e) of token ids (n, L)."""
        suffix = self.embed(tokens)  # (n, L, d)
        group = torch.zeros(len(tokens), dtype=torch.long, device=suffix.device)
        return self.encode(Prompts(suffix[:1, :0], suffix, group, self.eot(tokens)))

    def encode_text(self, texts: list[str]) -> torch.Tensor:
        """Text features (n, e) of plain texts."""
        starts = range(0, max(len(texts), 1), PROMPTS_AT_ONCE)
        parts = [self.tokenize(texts[i : i + PROMPTS_AT_ONCE]) for i in starts]
        return torch.cat([self.encode_tokens(tokens) for tokens in parts])

    def _packs(self, prompts: Prompts) -> bool:
        """Whether rows need to be computed once only; an EOT in a beginning is not provided for."""
        return self.packed and int(prompts.eot.min()) >= 0

    def _cost(self, prompts: Prompts) -> tuple[torch.Tensor, int]:
        """Rows that each prompt adds (n,), on the CPU, and rows that each group adds."""
        length = _own_length(prompts)
        prefix = prompts.prefix.shape[1]
        longest = int(length.max()) + prefix
        if longest > self.context_length:
            raise CLIPError(
                f"a prompt of {longest} tokens (SOS, context, name, '.', EOT) is too long: this "
                f"text tower takes {self.context_length}; use fewer context tokens or shorter names"
            )
        if self._packs(prompts):
            return length, prefix
        return torch.full_like(length, longest if self.causal else self.context_length), 0

    def _encode_packed(self, prompts: Prompts) -> torch.Tensor:
        """Every row once; see :mod:`clip._packed`."""
        prefix, suffix = prompts.prefix.to(self.dtype), prompts.suffix.to(self.dtype)
        position = self.positional_embedding.to(self.dtype)
        begin = prefix.shape[1]
        length = _own_length(prompts)
        layout = _layout.make_layout(prompts.group.cpu(), length, begin, suffix.device)
        row, token, repeat = layout.prompt, layout.token, None
        if prompts.suffix_index is not None:
            row = prompts.suffix_index.cpu()[row]
        source = row * suffix.shape[1] + token  # (k,)
        if prompts.suffix_index is not None:
            source, repeat = source.unique(return_inverse=True)
            token = source % suffix.shape[1]
        suffix = suffix.flatten(0, 1).index_select(0, to_device(source, suffix.device))
        suffix = suffix + index_rows(position, begin + token)
        prefix = prefix + position[:begin]
        x = _packed.encode(self.transformer.resblocks, prefix, suffix, layout, repeat)
        return self._project(self.ln_final(x))

    def _encode_tiles(self, prompts: Prompts) -> torch.Tensor:
        """Every row once, in few kernels; see :mod:`clip._tiles`."""
        x = torch.cat([prompts.prefix.flatten(0, 1), prompts.suffix.flatten(0, 1)]).to(self.dtype)
        position = self.positional_embedding.to(self.dtype)
        tiles = _tiles.make_tiles(_tiles.Structure.of(prompts), x.device)
        return self._project(
            self.ln_final(_tiles.encode(self.transformer.resblocks, x, position, tiles))
        )

    def _encode_plain(self, prompts: Prompts) -> torch.Tensor:
        """Every prompt by itself, through open_clip's own blocks."""
        x, last = self._assemble(prompts)  # (n, L, d), (n,)
        x = x + self.positional_embedding[: x.shape[1]].to(x.dtype)
        x = run_blocks(self.transformer, x, self.masked)
        return self._project(self.ln_final(self._read(x, last)))  # (n, e)

    def _assemble(self, prompts: Prompts) -> tuple[torch.Tensor, torch.Tensor]:
        """Prompts side by side (n, L, d), and the place of each EOT (n,)."""
        suffix, eot = prompts.suffix, to_device(prompts.eot, self.device)
        if prompts.suffix_index is not None:
            suffix, eot = (
                index_rows(suffix, prompts.suffix_index),
                index_rows(eot, prompts.suffix_index),
            )
        last = eot + prompts.prefix.shape[1]  # (n,)
        suffix = suffix[:, : int(prompts.eot.max()) + 1]
        prefix = index_rows(prompts.prefix, prompts.group)  # (n, P, d)
        x = torch.cat([prefix, suffix], 1).to(self.dtype)  # (n, L, d)
        return (x if self.causal else self._pad(x, last)), last

    def _pad(self, x: torch.Tensor, last: torch.Tensor) -> torch.Tensor:
        """x (n, L, d) at the context length, padding tokens (id 0) behind each EOT."""
        pad = self.token_embedding.weight[0].to(x.dtype)  # (d,)
        more = pad.expand(len(x), self.context_length - x.shape[1], -1)
        behind = torch.arange(self.context_length, device=self.device) > last[:, None]
        return torch.where(behind[..., None], pad, torch.cat([x, more], 1))

    def _read(self, x: torch.Tensor, last: torch.Tensor) -> torch.Tensor:
        if self.pool in ("first", "last"):
            return x[:, 0 if self.pool == "first" else -1]
        return x[torch.arange(len(x), device=x.device), last]

    def _project(self, x: torch.Tensor) -> torch.Tensor:
        if self.text_projection is None:
            return x
        if isinstance(self.text_projection, nn.Linear):
            return self.text_projection(x)
        return x @ self.text_projection


def _own_length(prompts: Prompts) -> torch.Tensor:
    """(n,) tokens of each prompt behind its beginning, EOT included; on the CPU."""
    length = prompts.eot.cpu() + 1
    return length if prompts.suffix_index is None else length[prompts.suffix_index.cpu()]


def _check_tower(text: nn.Module) -> bool:
    """Refuse a text tower that embeddings cannot be fed to; True if its attention is causal."""
    if not hasattr(getattr(text, "transformer", None), "resblocks"):
        raise CLIPError(
            f"text tower {type(text).__name__} has no open_clip blocks to run prompts in"
        )
    if getattr(text, "cls_emb", None) is not None or getattr(text, "use_pad_mask", False):
        raise CLIPError("text towers with a class token or a padding mask are not supported")
    if getattr(text, "text_pool_type", getattr(text, "pool_type", "argmax")) == "none":
        raise CLIPError("text towers that give one feature per token are not supported")
    mask = getattr(text, "attn_mask", None)
    if mask is None:
        return False
    if not torch.equal(mask, causal_mask(len(mask), mask.device, mask.dtype)):
        raise CLIPError("text towers whose attention mask is not the causal one are not supported")
    return True
