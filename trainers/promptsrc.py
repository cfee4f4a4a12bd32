"""PromptSRC: self-regulating prompts. https://arxiv.org/abs/2307.06948"""

from __future__ import annotations

import torch

from clip import TextEncoder
from dassl.config import CfgNode, Key
from dassl.data import TaskSpace
from dassl.engine import TRAINER_REGISTRY
from prompting.anchors import anchor_losses, imagenet_templates, teacher_features
from prompting.averaging import GaussianAverage
from prompting.deep_prompts import IndependentPrompter, check_depth
from prompting.precision import PRECISIONS
from prompting.prompter import ModelOutput, Prompter
from prompting.stored_features import Storable
from prompting.templates import TemplatePrompter, with_templates
from prompting.upstream_deep import independent_prompts_of

from ._base import PromptTrainer


@TRAINER_REGISTRY.register()
class PromptSRC(PromptTrainer):
    """IVLP held near the frozen CLIP, weights averaged over epochs; each task separately."""

    KEY = "PROMPTSRC"
    templates: TemplatePrompter  # made by build_templates
    DEFAULTS = dict(
        PREC=Key("fp16", choices=PRECISIONS),
        N_CTX_VISION=Key(4, least=1),  # tokens beside the patches
        N_CTX_TEXT=Key(4, least=1),  # context tokens
        # words that start the context; those that N_CTX_TEXT leaves over stay in the prompt, fixed
        CTX_INIT="a photo of a",
        PROMPT_DEPTH_VISION=Key(9, least=1),  # image blocks with tokens of their own
        PROMPT_DEPTH_TEXT=Key(9, least=1),  # text blocks with a context of their own
        TEXT_LOSS_WEIGHT=Key(25.0, least=0),  # of the distance of text features to the frozen ones
        IMAGE_LOSS_WEIGHT=Key(10.0, least=0),  # of that of image features
        LOGITS_LOSS_WEIGHT=Key(1.0, least=0),  # of the divergence of the probabilities
        NUM_TEMPLATES=Key(60, least=1, most=80),  # ImageNet's, averaged for the frozen features
        GPA_MEAN=Key(15.0, least=0),  # epoch that weighs most in the average of the weights
        GPA_STD=Key(1.0, least=0),  # its spread in epochs; 0: the weights of the last epoch
    )
    free_options = (
        "TEXT_LOSS_WEIGHT",
        "IMAGE_LOSS_WEIGHT",
        "LOGITS_LOSS_WEIGHT",
        "NUM_TEMPLATES",
        "GPA_MEAN",
        "GPA_STD",
    )
    uses_templates = True
    refused_labels = {"multi_label": "its divergence compares softmax probabilities"}
    needs_all_classes = True  # the losses are means over all classes

    def stored_features(self, options: CfgNode) -> Storable:
        return Storable.TEACHER

    def build_prompter(self, options: CfgNode, space: TaskSpace, text: TextEncoder) -> Prompter:
        depths = {"TEXT": text.layers, "VISION": self.clip.image_layers}
        for tower, layers in depths.items():
            key = f"PROMPT_DEPTH_{tower}"
            check_depth(f"PROMPTSRC.{key}", options[key], layers)
        return IndependentPrompter(options, space, text, self.clip)

    def build_templates(
        self, options: CfgNode, space: TaskSpace, text: TextEncoder
    ) -> TemplatePrompter:
        templates = imagenet_templates()[: options.NUM_TEMPLATES]
        return TemplatePrompter(with_templates(space, templates), text, normalised=False)

    def build_model(self) -> None:
        super().build_model()
        options = self.cfg.TRAINER.PROMPTSRC
        self.average = GaussianAverage(self.max_epoch, options.GPA_MEAN, options.GPA_STD)

    def compute_loss(
        self, output: ModelOutput, batch: dict, class_mask: torch.Tensor | None = None
    ) -> dict[str, torch.Tensor]:
        """Cross-entropy, and the weighted distances to the frozen CLIP."""
        options = self.cfg.TRAINER.PROMPTSRC
        losses = super().compute_loss(output, batch, class_mask)
        teacher = teacher_features(self.clip, batch)  # (B, e)
        anchors = anchor_losses(self.model, output, teacher, self.templates.features)
        weights = {
            "text": options.TEXT_LOSS_WEIGHT,
            "image": options.IMAGE_LOSS_WEIGHT,
            "logits": options.LOGITS_LOSS_WEIGHT,
        }
        return losses | {name: weight * anchors[name] for name, weight in weights.items()}

    def after_epoch(self) -> None:
        """Add the epoch's weights to the average, and take the average after the last epoch."""
        self.average.update(self.model.prompter, self.epoch)
        super().after_epoch()

    def extra_state(self) -> dict:
        return {**super().extra_state(), "average": self.average.state}

    def load_extra_state(self, state: dict) -> None:
        super().load_extra_state(state)
        self.average.state = state["average"]

    def from_upstream(self, states: dict[str, dict[str, torch.Tensor]]) -> dict[str, torch.Tensor]:
        return independent_prompts_of(states)
