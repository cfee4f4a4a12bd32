"""DePT: decoupled prompt tuning, a head beside the method of prompts that it is added to.

https://arxiv.org/abs/2309.07439
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import nn

from clip import TextEncoder
from dassl.config import CfgNode, Key
from dassl.data import TaskSpace
from dassl.data.datasets import DatasetBase
from dassl.engine import TRAINER_REGISTRY
from prompting.class_heads import CLASSES, load_without_head
from prompting.prompter import Features, ModelOutput, Prompter

from ._base import PromptTrainer

METHODS = ("CoOp", "CoCoOp", "KgCoOp", "MaPLe", "PromptSRC")
HEAD = "dept"  # the head's name within the prompter


class DecoupledHead(nn.Module):
    """A classifier of image and text features, each scaled and shifted channel by channel.

    The features (..., e) are not normalised. The scales start at 1, the shifts at 0.
    """

    def __init__(self, width: int, classes: int):
        super().__init__()
        self.image_scale, self.image_shift = _affine(width)
        self.text_scale, self.text_shift = _affine(width)
        self.classifier = nn.Linear(width, classes)

    def of_images(self, features: torch.Tensor) -> torch.Tensor:
        """Logits (B, C), fp32, of image features (B, e)."""
        return self._classify(self.image_scale * features.float() + self.image_shift)

    def of_texts(self, features: torch.Tensor) -> torch.Tensor:
        """Logits (n, C), fp32, of text features (n, e)."""
        return self._classify(self.text_scale * features.float() + self.text_shift)

    def _classify(self, x: torch.Tensor) -> torch.Tensor:
        with torch.autocast(x.device.type, enabled=False):
            return self.classifier(x)


def _affine(width: int) -> tuple[nn.Parameter, nn.Parameter]:
    return nn.Parameter(torch.ones(width)), nn.Parameter(torch.zeros(width))


@dataclass(frozen=True)
class DecoupledOutput(ModelOutput):
    """The output with both kinds of logits; ``logits`` is their weighted sum.

    cosine: (B, C), of the method of prompts.
    head: (B, C), of the image features by the head.
    raw_text: (C, e) or (B, C, e), not normalised; None if text features were given.
    """

    cosine: torch.Tensor | None = None
    head: torch.Tensor | None = None
    raw_text: torch.Tensor | None = None


def _method(name: str) -> type[PromptTrainer]:
    return TRAINER_REGISTRY.get(name)


@TRAINER_REGISTRY.register()
class DePT(PromptTrainer):
    """A decoupled head on a prompt method (METHOD), each task separately.

    The trainer is an instance of a class that inherits from this one and from METHOD's: the
    hooks here refine those of the method, whose own keys are under its own node.
    """

    KEY = "DEPT"
    DEFAULTS = dict(
        METHOD=Key("CoOp", choices=METHODS),  # what the head is added to
        WEIGHT=Key(0.7, least=0, most=1),  # of the head, in the loss and in the logits
        RATE_FACTOR=Key(6.5, above=0),  # learning rate of the head, relative to that of the prompts
    )
    free_options = ("RATE_FACTOR",)
    pairs = False  # the head is for classes
    refused_labels = {"multi_label": "its head classifies the text feature of an image's one class"}

    def __new__(cls, cfg: CfgNode, dataset: DatasetBase | None = None):
        base = _method(cfg.TRAINER.DEPT.METHOD)
        return object.__new__(type(base.__name__, (cls, base), {"KEY": base.KEY}))

    @classmethod
    def add_config(cls, cfg: CfgNode) -> None:
        """Add the head's node, and those of the methods that it may be added to."""
        super().add_config(cfg)
        for name in METHODS:
            _method(name).add_config(cfg)

    @classmethod
    def config_keys(cls, cfg: CfgNode) -> list[str]:
        """The head's node and the method's."""
        return [cls.KEY, _method(cfg.TRAINER.DEPT.METHOD).KEY]

    @classmethod
    def free_keys(cls, cfg: CfgNode) -> tuple[str, ...]:
        """The head's free options and the method's."""
        return cls.free_options + _method(cfg.TRAINER.DEPT.METHOD).free_options

    def build_prompter(self, options: CfgNode, space: TaskSpace, text: TextEncoder) -> Prompter:
        prompter = super().build_prompter(options, space, text)
        prompter.add_module(HEAD, DecoupledHead(text.out_dim, space.num_classes))
        self.head_fits = True  # its classes are those of the data
        return prompter

    def parameter_groups(self, prompter: Prompter) -> list:
        """The method's tensors, and the head's with a learning rate of their own."""
        head = dict(getattr(prompter, HEAD).named_parameters(prefix=HEAD))
        own = [
            parameter
            for name, parameter in prompter.named_parameters()
            if name not in head and parameter.requires_grad
        ]
        rate = self.cfg.TRAINER.DEPT.RATE_FACTOR * self.cfg.OPTIM.LR
        return [{"params": own}, {"params": list(head.values()), "lr": rate}]

    def forward(
        self,
        features: Features,
        class_mask: torch.Tensor | None = None,
        text_features: torch.Tensor | None = None,
    ) -> ModelOutput:
        model, raw = self.model, None
        if text_features is None:
            x = F.normalize(features["global"].float(), dim=-1)
            raw = model.prompter(model.text_tower, x, class_mask).float()
            text_features = F.normalize(raw, dim=-1)
        output = super().forward(features, class_mask, text_features)
        if not self.head_fits:
            return output
        weight = self.cfg.TRAINER.DEPT.WEIGHT
        head = getattr(model.prompter, HEAD).of_images(features["global"])
        return DecoupledOutput(
            (1 - weight) * output.logits + weight * head,
            output.text_features,
            output.image_features,
            cosine=output.logits,
            head=head,
            raw_text=raw,
        )

    def compute_loss(
        self, output: ModelOutput, batch: dict, class_mask: torch.Tensor | None = None
    ) -> dict[str, torch.Tensor]:
        """The method's losses times 1 - WEIGHT, and WEIGHT times the head's cross-entropy.

        The head classifies the batch's images and the text features of their classes.
        """
        assert isinstance(output, DecoupledOutput)  # of this trainer's forward
        assert output.head is not None and output.raw_text is not None  # in training
        weight, label = self.cfg.TRAINER.DEPT.WEIGHT, batch["label"]
        losses = super().compute_loss(replace(output, logits=output.cosine), batch, class_mask)
        texts = output.raw_text
        texts = texts[label] if texts.dim() == 2 else texts[torch.arange(len(label)), label]
        logits = torch.cat([output.head, getattr(self.model.prompter, HEAD).of_texts(texts)])
        head = self.dm.space.cross_entropy(
            logits,
            label.repeat(2),
            batch["task"].repeat(2),
            label_smoothing=self.cfg.OPTIM.LABEL_SMOOTHING,
        )
        scaled = {name: (1 - weight) * loss for name, loss in losses.items()}
        return {**scaled, "head": weight * head}

    def model_info(self) -> dict:
        """The method's options, and the head's."""
        info = super().model_info()
        return {**info, "options": {**info["options"], **self.cfg.TRAINER.DEPT.to_dict()}}

    def checkpoint_metadata(self) -> dict:
        """Beside the method's: the classes of the head."""
        return {**super().checkpoint_metadata(), CLASSES: self.dm.space.classnames}

    def bound_tensors(self) -> dict[str, list[str]]:
        """Beside the method's: the head; its names are in the metadata, as CLASSES."""
        head = getattr(self.model.prompter, HEAD).named_parameters(prefix=HEAD)
        return {**super().bound_tensors(), **{name: [] for name, _ in head}}

    def load_model(self, directory: str, epoch: int | None = None) -> None:
        """Load a checkpoint; for other classes the prompts alone."""
        self.head_fits = not (directory and load_without_head(self, directory, epoch, HEAD))
        if self.head_fits:
            super().load_model(directory, epoch)

    def method_name(self) -> str:
        return f"{super().method_name()}+DePT"
