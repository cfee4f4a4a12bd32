"""CLIP's frozen text tower, applied to prompt embeddings instead of token ids."""

from __future__ import annotations

import copy
from collections.abc import Mapping

import torch
from torch import nn

from . import _chunks, _layout, _narrow, _packed, _tiles
from ._blocks import causal_mask, check_text_tower, run_blocks
from ._errors import TextError
from ._graphs import TextGraphs
from ._layout import index_rows, to_device
from ._prompts import Prompts, suffix_lengths
from ._tokenizers import Tokenizer, tokenize
from .adapters import exchange
from .simple_tokenizer import shared_tokenizer

PROMPTS_AT_ONCE = 2048  # texts per call; the embeddings of more could fill the memory
NARROW = 128  # up to this width a CPU, like a GPU, takes longer to start kernels than to compute
ROW_VALUES = 14  # saved activations per row, layer and channel; measured on RN50 and ViT-B towers


class TextTower(nn.Module):
    """The text half of an open_clip model; it shares the model's weights and does not train.

    After ``load_state_dict(assign=True)`` of the model make a new tower: the positions and the
    projection of this one are still those that were replaced.

    Where attention is causal and the feature is read at EOT (``packed``), tokens after EOT are
    left out and the prefix of a group is computed once. Other towers get every prompt padded to
    the context length with the tokenizer's padding id, as open_clip pads it.

    ``chunk``: about the number of rows (token positions) whose activations are stored at once;
    longer batches are encoded in chunks that the backward pass recomputes. 0: no limit.

    Args:
        clip_model: an open_clip ``CLIP`` or ``CustomTextCLIP``.
        tokenizer: of the tower's texts; the default is CLIP's.

    Raises:
        CLIPError: the tower cannot take embeddings.
    """

    def __init__(self, clip_model: nn.Module, tokenizer: Tokenizer | None = None):
        super().__init__()
        text = getattr(clip_model, "text", clip_model)
        masked = check_text_tower(text)
        self.pool = getattr(text, "text_pool_type", getattr(text, "pool_type", "argmax"))
        self.eos_id = getattr(text, "text_eos_id", getattr(text, "eos_id", None))
        self.masked = masked
        self.transformer = text.transformer
        self.token_embedding = text.token_embedding
        self.positional_embedding = text.positional_embedding
        self.ln_final = text.ln_final
        self.text_projection = text.text_projection
        self.context_length = len(self.positional_embedding)
        self.tokenizer: Tokenizer = tokenizer or shared_tokenizer()
        self.chunk = 0
        self.tiles: bool | None = None  # use equal tiles (clip._tiles); None: on a GPU or if narrow
        self.graphs: TextGraphs | None = None  # of training steps on a GPU
        standard = all(map(_packed.is_standard, self.transformer.resblocks))
        self.packed = self.ignores_padding and standard
        self.requires_grad_(False)
        # to run the blocks as in clip._narrow, on a CPU; None: as modules
        blocks = self.transformer.resblocks
        self.narrow: _narrow.BlockWeights | None = _narrow.BlockWeights(blocks)
        self.train(False)

    def train(self, mode: bool = True) -> TextTower:
        """Do nothing: a frozen tower stays in eval mode."""
        return super().train(False)

    @property
    def ignores_padding(self) -> bool:
        """Whether a prompt's feature is independent of the tokens after its EOT."""
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
    def layers(self) -> int:
        """The number of blocks."""
        return len(self.transformer.resblocks)

    @property
    def dtype(self) -> torch.dtype:
        """Dtype of the blocks."""
        return self.transformer.resblocks[0].mlp.c_fc.weight.dtype

    @property
    def device(self) -> torch.device:
        """Device of the weights."""
        return self.positional_embedding.device

    def tokenize(self, texts: list[str]) -> torch.Tensor:
        """Token ids (n, L) at the full context length: those of a whole prompt, then padding.

        Raises:
            CLIPError: a text is longer than the context.
        """
        return tokenize(texts, self.context_length, self.tokenizer).to(self.device)

    def eot(self, tokens: torch.Tensor) -> torch.Tensor:
        """Position (n,) of EOT in token ids (n, L), or of the last token that is not padding."""
        if self.pool == "argmax":
            return tokens.argmax(-1)
        if self.pool == "eos":
            return (tokens == self.eos_id).int().argmax(-1)
        at = torch.arange(tokens.shape[1], device=tokens.device)
        return torch.where(tokens != self.tokenizer.pad_id, at, 0).amax(-1)

    def embed(self, tokens: torch.Tensor) -> torch.Tensor:
        """Token embeddings (...) -> (..., d), without positions."""
        return self.token_embedding(tokens)

    @property
    def tiled(self) -> bool:
        """Whether to use the fewest kernels (:mod:`clip._tiles`) rather than the least work."""
        few = self.device.type == "cuda" or self.width <= NARROW
        return few if self.tiles is None else self.tiles

    @property
    def row_bytes(self) -> int:
        """Approximate bytes of the activations of one row that wait for the backward pass."""
        return ROW_VALUES * self.layers * self.width * self.token_embedding.weight.element_size()

    def with_chunk(self, rows: int) -> TextTower:
        """This tower with another ``chunk``; the weights are shared."""
        other = copy.copy(self)
        other.chunk = rows
        return other

    def with_modules(self, new: Mapping[str, nn.Module]) -> TextTower:
        """This tower with other modules at some paths, see :func:`clip.adapters.exchange`."""
        other = exchange(self, new)
        if self.packed:  # which holds for its own blocks only
            other.packed = all(map(_packed.is_standard, other.transformer.resblocks))
        other.graphs = None  # one replays the kernels of modules that may change
        other.narrow = None
        return other

    @property
    def graphed(self) -> bool:
        """Whether text passes that repeat are replayed."""
        tiled = self.packed and self.tiled and (self.tiles or self.device.type == "cuda")
        return bool(tiled and self.graphs and self.graphs.enabled and not self.chunk)

    def count_rows(self, prompts: Prompts) -> int:
        """Rows (token positions) that :meth:`encode` runs through the blocks."""
        if self._can_pack(prompts):
            prompts = _layout.drop_unused_prefixes(prompts)
        rows, prefix_rows = self._rows(prompts)
        return int(rows.sum()) + prefix_rows * len(prompts.prefix)

    def encode(self, prompts: Prompts) -> torch.Tensor:
        """Text features (n, e), not normalised, in the tower's dtype.

        Raises:
            CLIPError: a prompt is longer than the context, or its deep contexts do not fit.
        """
        if len(prompts.group) == 0:
            return prompts.suffix.new_zeros((0, self.out_dim), dtype=self.dtype)
        prompts.check_deep(self.layers)
        encode = self._encode_plain
        if self._can_pack(prompts):
            encode = self._encode_tiles if self.tiled else self._encode_packed
            prompts = prompts if self.tiled else _layout.drop_unused_prefixes(prompts)
        return _chunks.encode_chunks(encode, prompts, *self._rows(prompts), self.chunk)

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

    def _can_pack(self, prompts: Prompts) -> bool:
        """Whether each row can be computed once; an EOT inside the prefix is unsupported."""
        return self.packed and int(prompts.eot.min()) >= 0

    def _rows(self, prompts: Prompts) -> tuple[torch.Tensor, int]:
        """Rows of each prompt (n,), on the CPU, and rows of each group."""
        length = suffix_lengths(prompts)
        prefix = prompts.prefix.shape[1]
        longest = int(length.max()) + prefix
        if longest > self.context_length:
            raise TextError(
                f"a prompt of {longest} tokens (SOS, context, name, '.', EOT) is too long: this "
                f"text tower takes {self.context_length}; use fewer context tokens or shorter names"
            )
        if self._can_pack(prompts):
            return length, prefix
        return torch.full_like(length, longest if self.ignores_padding else self.context_length), 0

    def _encode_packed(self, prompts: Prompts) -> torch.Tensor:
        """Each row once; see :mod:`clip._packed`."""
        prefix, suffix = prompts.prefix.to(self.dtype), prompts.suffix.to(self.dtype)
        position = self.positional_embedding.to(self.dtype)
        begin = prefix.shape[1]
        length = suffix_lengths(prompts)
        layout = _layout.make_layout(prompts.group.cpu(), length, begin, suffix.device)
        row, token, row_ids = layout.prompt, layout.token, None
        if prompts.suffix_index is not None:
            row = prompts.suffix_index.cpu()[row]
        source = row * suffix.shape[1] + token  # (k,)
        if prompts.suffix_index is not None:
            source, row_ids = source.unique(return_inverse=True)
            token = source % suffix.shape[1]
        suffix = suffix.flatten(0, 1).index_select(0, to_device(source, suffix.device))
        suffix = suffix + index_rows(position, begin + token)
        prefix = prefix + position[:begin]
        blocks = self.transformer.resblocks
        x = _packed.encode(blocks, prefix, suffix, layout, row_ids, prompts.deep, prompts.start)
        return self._project(self.ln_final(x))

    def _encode_tiles(self, prompts: Prompts) -> torch.Tensor:
        """Each row once, in few kernels; see :mod:`clip._tiles`."""
        structure = _tiles.Structure.of(prompts)
        tiles = _tiles.make_tiles(structure, self.device)

        def run(prefix: torch.Tensor, suffix: torch.Tensor, *deep: torch.Tensor) -> torch.Tensor:
            x = torch.cat([prefix.flatten(0, 1), suffix.flatten(0, 1)]).to(self.dtype)
            layers = dict(zip(structure.deep, deep, strict=True))
            blocks, positions = self.transformer.resblocks, self.positional_embedding
            plain = x.dtype == torch.float32 and not torch.is_autocast_enabled("cpu")
            on_cpu = plain and x.device.type == "cpu"
            narrow = self.narrow.current() if on_cpu and self.narrow else ()
            x = _tiles.encode(blocks, x, positions, tiles, layers, narrow)
            return self._project(self.ln_final(x))

        inputs = prompts.prefix, prompts.suffix, *prompts.deep.values()
        return self.graphs.run(structure, run, *inputs) if self.graphed else run(*inputs)

    def _encode_plain(self, prompts: Prompts) -> torch.Tensor:
        """Each prompt in full, through open_clip's own blocks."""
        x, last = self._assemble(prompts)  # (n, L, d), (n,)
        x = x + self.positional_embedding[: x.shape[1]].to(x.dtype)
        deep = {i: index_rows(ctx, prompts.group) for i, ctx in prompts.deep.items()}
        mask = causal_mask(x.shape[1], x.device, x.dtype) if self.masked else None
        x = run_blocks(self.transformer, x, mask, deep, prompts.start)
        return self._project(self.ln_final(self._read(x, last)))  # (n, e)

    def _assemble(self, prompts: Prompts) -> tuple[torch.Tensor, torch.Tensor]:
        """Whole prompts (n, L, d), and the position of each EOT (n,)."""
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
        return (x if self.ignores_padding else self._pad(x, last)), last

    def _pad(self, x: torch.Tensor, last: torch.Tensor) -> torch.Tensor:
        """x (n, L, d) at the context length, with padding tokens after each EOT."""
        pad = self.token_embedding.weight[self.tokenizer.pad_id].to(x.dtype)  # (d,)
        more = pad.expand(len(x), self.context_length - x.shape[1], -1)
        after_eot = torch.arange(self.context_length, device=self.device) > last[:, None]
        return torch.where(after_eot[..., None], pad, torch.cat([x, more], 1))

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
