"""Tip-Adapter and Tip-Adapter-F: zero-shot CLIP with a cache of training features.

https://arxiv.org/abs/2207.09519
"""

from __future__ import annotations

from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import nn

from clip import TextEncoder
from dassl.config import CfgNode, Key
from dassl.data import TaskSpace
from dassl.engine import TRAINER_REGISTRY
from prompting.fitting import Fitting
from prompting.heads import score
from prompting.precision import PRECISIONS
from prompting.prompter import Features, ModelOutput, Prompter
from prompting.templates import TemplatePrompter

from ._base import PromptTrainer

START = 0.1  # smallest searched value


class CachePrompter(TemplatePrompter):
    """Hand-written templates, and a cache: features K (N, e) of the training images.

        logits = exp(s) f w^T + alpha exp(-beta (1 - f K^T)) V,   V (N, C) one-hot

    with f the normalised image features and w the text features of the templates.
    """

    def __init__(self, options: CfgNode, space: TaskSpace, text: TextEncoder, images: int):
        super().__init__(space, text)
        keys = torch.zeros(images, text.out_dim)
        self.keys = nn.Parameter(keys, requires_grad=options.FINETUNE)
        self.register_buffer("label", torch.zeros(images, dtype=torch.long))  # (N,)
        self.register_buffer("alpha", torch.tensor(options.ALPHA))
        self.register_buffer("beta", torch.tensor(options.BETA))

    def affinity(self, features):
        """f K^T (B, N) of image features (B, e)."""
        with torch.autocast(features.device.type, enabled=False):
            return F.normalize(features.float(), dim=-1) @ self.keys.T

    def vote(self, affinity, beta):
        """exp(-beta (1 - A)) V (B, C) of affinities A (B, N)."""
        classes = F.one_hot(self.label, len(self.features)).to(affinity.dtype)  # V
        with torch.autocast(affinity.device.type, enabled=False):
            return torch.exp(-beta * (1 - affinity)) @ classes


@TRAINER_REGISTRY.register()
class TipAdapter(PromptTrainer):
    """Zero-shot CLIP with a cache of training features; each task separately.

    FINETUNE True trains the cached features (Tip-Adapter-F). alpha and beta are chosen on the
    validation images.
    """

    KEY = "TIP"
    DEFAULTS = dict(
        PREC=Key("fp16", choices=PRECISIONS),
        FINETUNE=False,  # Tip-Adapter-F: train the keys K
        # augmented views per image whose features are averaged; 0: no augmentation
        VIEWS=Key(10, least=0),
        # weight of the cache in training, and, without SEARCH, in testing
        ALPHA=Key(1.0, least=0),
        BETA=Key(1.0, least=0),  # sharpness of the cache, in the same cases
        SEARCH=True,  # choose ALPHA and BETA on the validation images
        # SEARCH: largest values, and number of values from 0.1 up to them
        ALPHA_MAX=Key(3.0, above=START),
        BETA_MAX=Key(7.0, above=START),
        ALPHA_STEPS=Key(20, least=1),
        BETA_STEPS=Key(200, least=1),
    )

    refused_labels = {"multi_label": "its cache has one class per image"}

    @property
    def steps_rule(self):
        """How steps are counted, for the record."""
        return super().steps_rule if self.cfg.TRAINER.TIP.FINETUNE else "fitted"

    @torch.no_grad()
    def build_prompter(self, options: CfgNode, space: TaskSpace, text: TextEncoder) -> Prompter:
        return CachePrompter(options, space, text, len(self.dataset.train_x or ()))

    def build_fitting(self, options: CfgNode) -> Fitting:
        values = ("ALPHA", "BETA") if options.SEARCH else ()
        return Fitting(fit=self.fit, tune=self.tune, tuned_values=values)

    def forward(
        self,
        features: Features,
        class_mask: torch.Tensor | None = None,
        text_features: torch.Tensor | None = None,
    ) -> ModelOutput:
        cache = self.model.prompter
        votes = cache.vote(cache.affinity(features["global"]), cache.beta)
        output = self.model.forward_features(features, class_mask, text_features)
        return replace(output, logits=output.logits + cache.alpha * votes)

    def fit(self):
        cache = self.model.prompter
        features, label, _ = self.split_features("train", self.cfg.TRAINER.TIP.VIEWS)
        cache.keys.data.copy_(F.normalize(features["global"], dim=-1))
        cache.label.copy_(label)

    def tune(self):
        options, cache = self.cfg.TRAINER.TIP, self.model.prompter
        features, label, _ = self.split_features("val")
        clip, affinity = self.model.logits(features), cache.affinity(features["global"])
        alphas = grid(options.ALPHA_MAX, options.ALPHA_STEPS).to(clip)
        best = float("-inf")
        for beta in grid(options.BETA_MAX, options.BETA_STEPS).to(clip):
            votes = cache.vote(affinity, beta)
            found = score(self.cfg, self.dm.space, clip + alphas[:, None, None] * votes, label)
            if found.max() > best:
                best = found.max().item()
                cache.alpha.copy_(alphas[found.argmax()])
                cache.beta.copy_(beta)
        print(
            f"alpha {cache.alpha:.3g}, beta {cache.beta:.3g}: {best:.2f}% on {len(label)} "
            "validation images"
        )

    def bound_tensors(self) -> dict[str, list[str]]:
        return {"keys": self.dm.space.classnames}

    def method_name(self) -> str:
        return "Tip-Adapter-F" if self.cfg.TRAINER.TIP.FINETUNE else "Tip-Adapter"


def grid(end: float, steps: int) -> torch.Tensor:
    """``steps`` equally spaced values from 0.1 up to, but without, ``end``."""
    return START + torch.arange(steps) * (end - START) / steps
