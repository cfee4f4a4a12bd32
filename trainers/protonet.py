"""Prototypes of frozen image features. https://arxiv.org/abs/1703.05175 (equations 1 and 2)"""

from __future__ import annotations

import torch
import torch.nn.functional as F

from dassl.config import Key
from dassl.engine import TRAINER_REGISTRY
from prompting.fitting import Fitting
from prompting.heads import Head, require_every_class
from prompting.precision import PRECISIONS
from prompting.prompter import ModelOutput

from ._base import PromptTrainer

DISTANCES = ("euclidean", "cosine")


class Prototypes(Head):
    """The mean of each class's normalised training features."""

    def __init__(self, classes: int, width: int):
        super().__init__()
        self.register_buffer("means", torch.zeros(classes, width))  # (C, e)

    def take(self, features: torch.Tensor, label: torch.Tensor) -> None:
        """Average features (N, e) by their labels (N,)."""
        total = torch.zeros_like(self.means).index_add_(0, label, F.normalize(features, dim=-1))
        self.means.copy_(total / label.bincount(minlength=len(total))[:, None])

    def forward(self, text, image_features, class_mask=None):
        """The means (C, e) in the place of text features."""
        return self.means


@TRAINER_REGISTRY.register()
class ProtoNet(PromptTrainer):
    """Nearest class mean among frozen features, each task by itself; no step is taken."""

    KEY = "PROTONET"
    DEFAULTS = dict(
        PREC=Key("fp16", choices=PRECISIONS),
        # euclidean: the squared distance, as in the paper
        DISTANCE=Key("euclidean", choices=DISTANCES),
    )
    steps_rule = "fitted"

    def build_prompter(self, options, space, text):
        return Prototypes(space.num_classes, text.out_dim)

    def build_fitting(self, options):
        return Fitting(fit=self.fit)

    def forward(self, features, class_mask=None, text_features=None):
        if self.cfg.TRAINER.PROTONET.DISTANCE == "cosine":
            return self.model.forward_features(features, class_mask)
        x = F.normalize(features["global"].float(), dim=-1)
        exact = "donot_use_mm_for_euclid_dist"
        return ModelOutput(-torch.cdist(x, self.model.prompter.means, compute_mode=exact).square())

    def class_bound_names(self):
        return self.dm.space.classnames

    def fit(self):
        features, label, _ = self.split_features("train")
        require_every_class(self.dm.space, label, "ProtoNet")
        self.model.prompter.take(features["global"], label)

    def method_name(self):
        cosine = self.cfg.TRAINER.PROTONET.DISTANCE == "cosine"
        return "ProtoNet (cosine)" if cosine else "ProtoNet"
