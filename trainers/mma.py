"""MMA: adapters in the later blocks of both towers, with layers that the towers share.

CVPR 2024, "MMA: Multi-Modal Adapter for Vision-Language Models";
https://github.com/ZjjConan/VLM-MultiModalAdapter
"""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from clip import CLIP, TextEncoder
from clip.adapters import UpdatedBlock, block_width, transformer_blocks
from dassl.config import CfgNode, Key
from dassl.data import TaskSpace
from dassl.engine import TRAINER_REGISTRY
from dassl.utils import UserError
from prompting.adapted import AdaptedPrompter
from prompting.precision import PRECISIONS
from prompting.prompter import Prompter
from prompting.stored_features import Storable
from prompting.templates import with_template

from ._base import PromptTrainer

TOWERS = ("text", "image")


class SharedAdapter(nn.Module):
    """What the blocks of one number in both towers add for their normed tokens x (..., width).

        SCALE · Up(ReLU(Shared(ReLU(Down(x)))))    Down, Up: of the tower; Shared: of both

    Gradients of the weights are those without SCALE, so that a small one does not slow learning;
    those that reach x are exact.

    Args:
        widths: of the tokens of the text and of the image tower.
        dim: width between Down and Up.
    """

    def __init__(self, widths: tuple[int, int], dim: int, scale: float):
        super().__init__()
        pairs = list(zip(TOWERS, widths, strict=True))
        self.down = nn.ModuleDict({name: _linear(width, dim) for name, width in pairs})
        self.shared = _linear(dim, dim)
        self.up = nn.ModuleDict({name: _linear(dim, width) for name, width in pairs})
        self.scale = scale

    def forward(self, x: torch.Tensor, tower: str) -> torch.Tensor:
        """The addition (..., width) to a block of ``tower``, in the dtype of x."""
        inner = _Scale.apply(x.to(self.shared.weight.dtype), 1.0, self.scale)
        inner = F.relu(self.shared(F.relu(self.down[tower](inner))))
        return _Scale.apply(self.up[tower](inner), self.scale, 1.0).to(x.dtype)


class _Scale(torch.autograd.Function):
    """x times one number, its gradient times another."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, value: float, gradient: float) -> torch.Tensor:
        ctx.gradient = gradient
        return x * value

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor, None, None]:
        return grad * ctx.gradient, None, None


def _linear(inputs: int, outputs: int) -> nn.Linear:
    layer = nn.Linear(inputs, outputs)
    nn.init.kaiming_normal_(layer.weight, mode="fan_out")
    nn.init.zeros_(layer.bias)
    return layer


class MultiModalPrompter(AdaptedPrompter):
    """Adapters beside the blocks START to END of both towers; text of a hand-written template."""

    def __init__(self, options: CfgNode, space: TaskSpace, clip: CLIP):
        towers = clip.text_tower, clip.visual
        chosen = [
            _chosen_blocks(tower, name, options, clip.name)
            for tower, name in zip(towers, TOWERS, strict=True)
        ]
        exchanged: list[dict[str, nn.Module]] = [{}, {}]
        adapters = []
        for pair in zip(*(blocks.items() for blocks in chosen), strict=True):
            widths = block_width(pair[0][1]), block_width(pair[1][1])
            adapter = SharedAdapter(widths, options.DIM, options.SCALE)
            adapters.append(adapter)
            for new, name, (path, block) in zip(exchanged, TOWERS, pair, strict=True):
                new[path] = UpdatedBlock(block, partial(adapter, tower=name))
        super().__init__(space, clip, *exchanged)
        self.adapters = nn.ModuleList(adapters)


def _chosen_blocks(
    tower: nn.Module, name: str, options: CfgNode, backbone: str
) -> dict[str, nn.Module]:
    """The blocks START to END of a tower by path; refuses a tower without them."""
    blocks = list(transformer_blocks(tower).items())
    if not blocks:
        raise UserError(
            f"MMA adds to the blocks of the {name} tower, but that of {backbone} has none that "
            "this project knows; choose one whose towers are transformers of open_clip, as ViT-B/16"
        )
    if len(blocks) < options.END:
        raise UserError(
            f"TRAINER.MMA.END {options.END}: the {name} tower of {backbone} has {len(blocks)} "
            "blocks; give the numbers, from 1, of blocks that both towers have"
        )
    return dict(blocks[options.START - 1 : options.END])


@TRAINER_REGISTRY.register()
class MMA(PromptTrainer):
    """Adapters in the later blocks of both towers, which share layers; each task separately."""

    KEY = "MMA"
    DEFAULTS = dict(
        PREC=Key("amp", choices=PRECISIONS),
        START=Key(5, least=1),  # the first block with an adapter, from 1
        END=Key(12, least=1),  # the last one
        DIM=Key(32, least=1),  # width of the layers that the towers share
        SCALE=Key(0.001, above=0),  # of what the adapters add
        TEMPLATE="a photo of a {}.",  # one for every dataset; empty: the dataset's own
    )
    free_options = ("TEMPLATE",)

    def check_cfg(self, cfg: CfgNode) -> None:
        options = cfg.TRAINER.MMA
        if options.START > options.END:
            raise UserError(
                f"TRAINER.MMA.START {options.START} is behind END {options.END}; give the numbers "
                "of the first and of the last block with an adapter"
            )

    def stored_features(self, options: CfgNode) -> Storable:
        return Storable.NONE

    def build_prompter(self, options: CfgNode, space: TaskSpace, text: TextEncoder) -> Prompter:
        return MultiModalPrompter(options, with_template(space, options.TEMPLATE), self.clip)
