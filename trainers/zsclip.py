"""Zero-shot CLIP with hand-written templates. https://arxiv.org/abs/2103.00020"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from dassl.data import FreeText
from dassl.engine import TRAINER_REGISTRY

from ._base import PromptTrainer
from ._prompts import cut_texts

# Templates that CoOp and SoftCPT average with a dataset's own (facts of their released code).
ENSEMBLE = (
    "itap of a {}.",
    "a bad photo of the {}.",
    "a origami {}.",
    "a photo of the large {}.",
    "a {} in a video game.",
    "art of the {}.",
    "a photo of the small {}.",
)


class TemplatePrompter(nn.Module):
    """Text features of the class names in hand-written templates; nothing is learned.

    Several templates are averaged after normalisation, class by class.
    """

    def __init__(self, space, text, extra=()):
        super().__init__()
        parts = []
        for task in space.tasks:
            templates = dict.fromkeys((*task.templates, *extra))
            names = [name.replace("_", " ") for name in task.classnames]
            if isinstance(task.classnames, FreeText):
                names = cut_texts(names, text)
            parts.append(
                sum(
                    F.normalize(text.encode_text([t.format(n) for n in names]).float(), dim=-1)
                    for t in templates
                )
            )
        features = F.normalize(torch.cat(parts), dim=-1)  # (C, e)
        self.register_buffer("features", features, persistent=False)

    def forward(self, text, image_features, keep=None):
        """Text features (C, e)."""
        return self.features


@TRAINER_REGISTRY.register()
class ZeroshotCLIP(PromptTrainer):
    """The datasets' own templates; one task or a whole suite."""

    KEY = "ZEROSHOT"
    pairs = True
    DEFAULTS = dict(PREC="fp16")  # fp16, fp32 or amp
    suite = "joint"
    extra_templates = ()

    @torch.no_grad()
    def build_prompter(self, options, space, text):
        return TemplatePrompter(space, text, self.extra_templates)

    def method_name(self):
        return "zero-shot"


@TRAINER_REGISTRY.register()
class ZeroshotCLIP2(ZeroshotCLIP):
    """The average of the dataset's own template and seven general ones."""

    KEY = "ZEROSHOT2"
    pairs = False  # its templates are for names of things
    extra_templates = ENSEMBLE

    def method_name(self):
        return "zero-shot (ensemble)"
