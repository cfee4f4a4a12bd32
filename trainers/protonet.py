"""Prototypes of frozen image features. https://arxiv.org/abs/1703.05175 (equations 1 and 2)"""

from __future__ import annotations

import torch
import torch.nn.functional as F

from clip import TextEncoder
from dassl.config import CfgNode, Key
from dassl.data import TaskSpace
from dassl.engine import TRAINER_REGISTRY
from prompting.fitting import Fitting
from prompting.heads import Head, require_every_class
from prompting.precision import PRECISIONS
from prompting.prompter import Features, ModelOutput, Prompter

from ._base import PromptTrainer

DISTANCES = ("euclidean", "cosine")


class Prototypes(Head):
    """The mean of each class's normalised training features."""

    def __init__(self, classes: int, width: int):
        super().__init__()
        self.register_buffer("means", torch.zeros(classes, width))  # (C, e)

    def set_means(self, features: torch.Tensor, label: torch.Tensor) -> None:
        """Average normalised features (N, e) by their labels (N,)."""
        total = torch.zeros_like(self.means).index_add_(0, label, F.normalize(features, dim=-1))
        self.means.copy_(total / label.bincount(minlength=len(total))[:, None])

    def forward(
        self,
        text: TextEncoder,
        image_features: torch.Tensor,
        class_mask: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """The means (C, e), in place of text features."""
        return self.means


@TRAINER_REGISTRY.register()
class ProtoNet(PromptTrainer):
    """Nearest class mean of frozen features, without SGD; each task separately."""

    KEY = "PROTONET"
    DEFAULTS = dict(
        PREC=Key("fp16", choices=PRECISIONS),
        # euclidean: the squared distance, as in the paper
        DISTANCE=Key("euclidean", choices=DISTANCES),
    )
    refused_labels = {"multi_label": "it averages the images of each class as the only one"}
    steps_rule = "fitted"

    def build_prompter(self, options: CfgNode, space: TaskSpace, text: TextEncoder) -> Prompter:
        return Prototypes(space.num_classes, text.out_dim)

    def build_fitting(self, options: CfgNode) -> Fitting:
        return Fitting(fit=self.fit)

    def forward(
        self,
        features: Features,
        class_mask: torch.Tensor | None = None,
        text_features: torch.Tensor | None = None,
    ) -> ModelOutput:
        if self.cfg.TRAINER.PROTONET.DISTANCE == "cosine":
            return self.model.forward_features(features, class_mask)
        x = F.normalize(features["global"].float(), dim=-1)
        exact = "donot_use_mm_for_euclid_dist"
        return ModelOutput(-torch.cdist(x, self.model.prompter.means, compute_mode=exact).square())

    def bound_tensors(self) -> dict[str, list[str]]:
        return {"means": self.dm.space.classnames}

    def fit(self):
        features, label, _ = self.split_features("train")
        require_every_class(self.dm.space, label, "ProtoNet")
        self.model.prompter.set_means(features["global"], label)

    def method_name(self) -> str:
        cosine = self.cfg.TRAINER.PROTONET.DISTANCE == "cosine"
        return "ProtoNet (cosine)" if cosine else "ProtoNet"
