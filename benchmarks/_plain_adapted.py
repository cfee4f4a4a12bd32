"""Naive training steps of methods that learn in copies of the towers' modules."""

from __future__ import annotations

import math

import torch.nn.functional as F
from torch import Tensor, nn

from ._plain_methods import PlainMethod


class PlainAdapted(PlainMethod):
    """A method whose learned tensors are in the towers; the text is "a photo of a {}."."""

    def text(self) -> Tensor:
        return self.model.encode_text(self.tokens("a photo of a {}."))

    def image(self, images: Tensor) -> Tensor:
        return self.model.encode_image(images)


class PlainLoRA(PlainAdapted):
    """CLIP-LoRA: every attention layer is replaced by one with separate projections."""

    def __init__(self, model: nn.Module, *rest, **named):
        super().__init__(model, *rest, **named)
        paths = [
            name for name, part in model.named_modules() if type(part) is nn.MultiheadAttention
        ]
        # our updates are in the order of the text blocks, then of the image blocks
        paths.sort(key=lambda path: path.startswith("visual."))
        for i, path in enumerate(paths):
            pair = (self.learned[f"updates.{i}.down"], self.learned[f"updates.{i}.up"])
            parent, _, name = path.rpartition(".")
            layer = PlainAttention(model.get_submodule(path), *pair)
            setattr(model.get_submodule(parent), name, layer)


class PlainAttention(nn.Module):
    """Self-attention with a low-rank update of q, k and v: (3, r, d) down and (3, d, r) up."""

    def __init__(self, frozen: nn.MultiheadAttention, down: Tensor, up: Tensor):
        super().__init__()
        self.frozen, self.pair, self.scale = frozen, (down, up), 1 / math.sqrt(down.shape[1])

    def forward(self, x: Tensor, *rest, attn_mask: Tensor | None = None, **named):
        frozen, (down, up) = self.frozen, self.pair
        weights, biases = frozen.in_proj_weight.chunk(3), frozen.in_proj_bias.chunk(3)
        heads = []
        for i in range(3):
            y = F.linear(x, weights[i], biases[i])
            y = y + self.scale * F.linear(F.linear(x, down[i]), up[i])
            heads.append(y.unflatten(-1, (frozen.num_heads, -1)).transpose(1, 2))
        out = F.scaled_dot_product_attention(*heads, attn_mask=attn_mask)
        return frozen.out_proj(out.transpose(1, 2).flatten(2)), None


class PlainNorms(PlainAdapted):
    """The first stage of 2SFS: the scales and shifts of all layer norms."""

    def __init__(self, model: nn.Module, *rest, **named):
        super().__init__(model, *rest, **named)
        norms = [
            (name, part) for name, part in model.named_modules() if isinstance(part, nn.LayerNorm)
        ]
        norms.sort(key=lambda pair: pair[0].startswith("visual."))
        for i, (_, norm) in enumerate(norms):
            for kind in ("weight", "bias"):
                del norm._parameters[kind]
                setattr(norm, kind, self.learned[f"norms.{i}.{kind}"])


class PlainMMA(PlainAdapted):
    """MMA: the last blocks of both towers, up to the twelfth, with adapters beside them."""

    def __init__(self, model: nn.Module, *rest, **named):
        super().__init__(model, *rest, **named)
        count = len({name.split(".")[1] for name in self.learned})
        start = min(len(model.transformer.resblocks), 12) - count
        towers = {"text": model.transformer, "image": model.visual.transformer}
        for tower, transformer in towers.items():
            for i in range(count):
                layers = [
                    [self.learned[f"adapters.{i}.{layer}.{kind}"] for kind in ("weight", "bias")]
                    for layer in (f"down.{tower}", "shared", f"up.{tower}")
                ]
                block = transformer.resblocks[start + i]
                transformer.resblocks[start + i] = PlainBesideBlock(block, layers)


class PlainBesideBlock(nn.Module):
    """A block and an adapter of its normed input; weights have the gradient of scale 1."""

    def __init__(self, frozen: nn.Module, layers: list[list[Tensor]], scale: float = 0.001):
        super().__init__()
        self.frozen, self.get_weight_dtype = frozen, frozen.get_weight_dtype
        self.layers, self.scale = layers, scale

    def forward(self, x: Tensor, *rest, **named) -> Tensor:
        down, shared, up = self.layers
        y = self.frozen.ln_1(x)
        y = y.detach() + self.scale * (y - y.detach())
        y = F.linear(F.relu(F.linear(F.relu(F.linear(y, *down)), *shared)), *up)
        return self.frozen(x, *rest, **named) + self.scale * y.detach() + y - y.detach()
