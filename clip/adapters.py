"""Frozen towers with some of their modules exchanged: attention or blocks with an update, norms.

Nothing is written into a frozen tower. An exchanged tower is a copy of its tree of modules, in
which the unchanged modules are the very same objects.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Callable, Mapping
from typing import TypeVar

import torch
import torch.nn.functional as F
from torch import nn

BLOCK = re.compile(r"(^|\.)(resblocks|blocks)\.\d+$")
ATTENTION = re.compile(rf"{BLOCK.pattern[:-1]}\.attn(\.qkv)?$")
FIRST_NORMS = ("ln_1", "norm1")  # open_clip's and timm's name
Tree = TypeVar("Tree", bound=nn.Module)


def exchange(tree: Tree, new: Mapping[str, nn.Module]) -> Tree:
    """A copy of a tree of modules with other modules at some paths.

    Args:
        new: the modules by their path within the tree, as ``named_modules`` gives it.
    """
    below: dict[str, dict[str, nn.Module]] = {}
    for path, module in new.items():
        child, _, rest = path.partition(".")
        below.setdefault(child, {})[rest] = module
    out = copy.copy(tree)
    out._modules = dict(tree._modules)
    for child, parts in below.items():
        own = tree._modules[child]
        assert own is not None  # a path leads to a module
        out._modules[child] = parts[""] if "" in parts else exchange(own, parts)
    return out


def attention_layers(tower: nn.Module) -> dict[str, nn.Module]:
    """The joint query, key and value projections of a tower's blocks by path, with their owner.

    Those of open_clip are inside an ``nn.MultiheadAttention``, those of timm a linear layer.
    Empty for towers without either: ResNets, convolutional towers.
    """
    return {
        path: module
        for path, module in tower.named_modules()
        if ATTENTION.search(path)
        and (
            (type(module) is nn.MultiheadAttention and module.in_proj_weight is not None)
            or (isinstance(module, nn.Linear) and path.endswith(".qkv"))
        )
    }


def projection_width(layer: nn.Module) -> int:
    """Width of the tokens that enter one of :func:`attention_layers`."""
    return layer.embed_dim if isinstance(layer, nn.MultiheadAttention) else layer.in_features


def updated(layer: nn.Module, update: Callable[[torch.Tensor], torch.Tensor]) -> nn.Module:
    """One of :func:`attention_layers` that adds ``update(x)`` (..., 3 d) to its projection of x."""
    kind = _Attention if isinstance(layer, nn.MultiheadAttention) else _Linear
    return kind(layer, update)


class _Linear(nn.Module):
    """A frozen linear layer plus an update of its input."""

    def __init__(self, frozen: nn.Linear, update: Callable[[torch.Tensor], torch.Tensor]):
        super().__init__()
        self.frozen, self.update = frozen, update

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.frozen(x) + self.update(x)


class _Attention(nn.Module):
    """The frozen self-attention of an open_clip block; its joint projection has an update."""

    def __init__(self, frozen: nn.MultiheadAttention, update: Callable):
        super().__init__()
        self.frozen, self.update = frozen, update
        self.batch_first = frozen.batch_first

    def forward(
        self,
        query: torch.Tensor,
        key: torch.Tensor | None = None,
        value: torch.Tensor | None = None,
        need_weights: bool = False,
        attn_mask: torch.Tensor | None = None,
    ) -> tuple[torch.Tensor, None]:
        """As ``nn.MultiheadAttention``, for a query that is key and value as well."""
        x = query if self.batch_first else query.transpose(0, 1)  # (n, L, d)
        qkv = F.linear(x, self.frozen.in_proj_weight, self.frozen.in_proj_bias) + self.update(x)
        q, k, v = qkv.unflatten(-1, (3, self.frozen.num_heads, -1)).permute(2, 0, 3, 1, 4)
        if attn_mask is not None and attn_mask.dim() == 3:  # (n * heads, L, L), as CoCa has it
            attn_mask = attn_mask.unflatten(0, (len(x), -1))
        out = F.scaled_dot_product_attention(q, k, v, attn_mask=attn_mask)
        out = self.frozen.out_proj(out.transpose(1, 2).flatten(2))
        return (out if self.batch_first else out.transpose(0, 1)), None


def layer_norms(tower: nn.Module) -> dict[str, nn.LayerNorm]:
    """The layer norms of a tower by path; a ResNet has none."""
    modules = tower.named_modules()
    return {path: module for path, module in modules if isinstance(module, nn.LayerNorm)}


def transformer_blocks(tower: nn.Module) -> dict[str, nn.Module]:
    """The residual blocks of a tower by path, in order, that begin with a norm of their tokens.

    Those of open_clip and of timm's vision transformers; empty for towers without such blocks.
    """
    return {
        path: module
        for path, module in tower.named_modules()
        if BLOCK.search(path)
        and "Post" not in type(module).__name__
        and any(hasattr(module, name) for name in FIRST_NORMS)
    }


def block_width(block: nn.Module) -> int:
    """Width of the tokens that enter one of :func:`transformer_blocks`."""
    return _first_norm(block).weight.shape[0]


def _first_norm(block: nn.Module) -> nn.Module:
    """The norm before the attention of one of :func:`transformer_blocks`."""
    return next(getattr(block, name) for name in FIRST_NORMS if hasattr(block, name))


class UpdatedBlock(nn.Module):
    """One of :func:`transformer_blocks` that adds ``update(norm(x))`` to its output.

    ``norm(x)`` is the input of the block's attention.
    """

    def __init__(self, frozen: nn.Module, update: Callable[[torch.Tensor], torch.Tensor]):
        super().__init__()
        self.frozen, self.update = frozen, update

    @property
    def attn(self) -> nn.Module:
        """The block's attention, which says whether the batch is the first dimension."""
        return self.frozen.attn

    @property
    def mlp(self) -> nn.Module:
        """The block's MLP, which says in what dtype a text tower computes."""
        return self.frozen.mlp

    def forward(self, x: torch.Tensor, *args, **kwargs) -> torch.Tensor:
        return self.frozen(x, *args, **kwargs) + self.update(_first_norm(self.frozen)(x))
