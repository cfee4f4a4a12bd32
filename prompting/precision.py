"""Precision, input size, memory layout and compilation of the frozen towers."""

from __future__ import annotations

import torch
from torch import nn

from clip import load_backbone
from dassl.config import CfgNode
from dassl.utils import Stopwatch, UserError

PRECISIONS = ("fp16", "fp32", "amp")


def choose_precision(wanted: str, device: str) -> str:
    """The precision of the frozen towers; without a GPU always fp32."""
    if device == "cpu" and wanted != "fp32":
        return "fp32"
    return wanted


def load_frozen_clip(
    cfg: CfgNode, precision: str, device: str, outputs: frozenset[str]
) -> nn.Module:
    """The backbone of the configuration, prepared as ``cfg.COMPUTE`` says.

    Args:
        outputs: names of the outputs that its image tower must have.

    Raises:
        UserError: no backbone is configured, or it lacks one of the outputs.
    """
    backbone = cfg.MODEL.BACKBONE
    if not backbone.NAME:
        raise UserError(
            "MODEL.BACKBONE.NAME is empty: choose a backbone with --config-file or "
            "--backbone (train.py --list shows them)"
        )
    weights = "fp16" if precision == "fp16" else "fp32"
    clip_model = load_backbone(backbone.NAME, backbone.ARCH, device=device, precision=weights)
    clip_model.check_outputs(outputs)
    prepare_clip(clip_model, cfg.COMPUTE)
    return clip_model


def prepare_clip(clip_model: nn.Module, options: CfgNode) -> None:
    """Set rounding, memory layout and compilation of the image tower, as in ``cfg.COMPUTE``.

    Weights and their names do not change. On a CPU only COMPILE has an effect.
    """
    if clip_model.device.type == "cuda":
        # names that torch 2.6 has too; its newer fp32_precision must not be mixed with them
        torch.set_float32_matmul_precision("high" if options.TF32 else "highest")
        torch.backends.cudnn.allow_tf32 = options.TF32
        if options.CHANNELS_LAST:
            lay_out(clip_model.visual)
    if options.COMPILE and clip_model.visual._compiled_call_impl is None:
        clip_model.visual.compile()


def with_input_of(cfg: CfgNode, clip_model: nn.Module) -> CfgNode:
    """The configuration with the backbone's own INPUT values where it sets none."""
    size = tuple(cfg.INPUT.SIZE) or clip_model.image_size
    if size != tuple(clip_model.image_size):
        raise UserError(
            f"{clip_model.name} takes images of {clip_model.image_size}, but INPUT.SIZE is {size}; "
            "leave INPUT.SIZE out to use the backbone's"
        )
    values = {
        "INPUT.SIZE": size,
        "INPUT.PIXEL_MEAN": list(cfg.INPUT.PIXEL_MEAN) or list(clip_model.image_mean),
        "INPUT.PIXEL_STD": list(cfg.INPUT.PIXEL_STD) or list(clip_model.image_std),
        "INPUT.INTERPOLATION": cfg.INPUT.INTERPOLATION or clip_model.interpolation,
        "INPUT.RESIZE_MODE": cfg.INPUT.RESIZE_MODE or clip_model.resize_mode,
    }
    return cfg.with_values(values)


def lay_out(visual: nn.Module) -> None:
    """Store the weights of a ResNet channels-last; its convolutions then run in that layout.

    A ViT, whose only convolution cuts the patches, is not changed.
    """
    if sum(isinstance(module, nn.Conv2d) for module in visual.modules()) > 1:
        visual.to(memory_format=torch.channels_last)


def precision_name(precision: str, device: torch.device) -> str:
    """The precision in the key of stored features, including TF32 rounding on a GPU."""
    tf32 = device.type == "cuda" and torch.get_float32_matmul_precision() != "highest"
    return f"{precision}, tf32" if tf32 else precision


def to_device(value, device: torch.device):
    """A tensor on a device, copied asynchronously from pinned memory; other values unchanged."""
    return value.to(device, non_blocking=True) if torch.is_tensor(value) else value


def time_text(clock: Stopwatch, prompter: nn.Module) -> None:
    """Count the prompter's forward and backward passes as "text" on the clock."""
    before = []

    def start(*_) -> None:
        before.append(clock.switch("text"))

    def stop(module, args, text) -> None:
        clock.switch(before.pop())
        if torch.is_tensor(text) and text.requires_grad:
            text.register_hook(back)

    def back(gradient) -> None:
        clock.switch("text")

    prompter.register_forward_pre_hook(start)
    prompter.register_forward_hook(stop)
