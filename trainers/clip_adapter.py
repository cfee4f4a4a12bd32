"""CLIP-Adapter: a bottleneck on the image feature. https://arxiv.org/abs/2110.04544"""

from __future__ import annotations

import torch
from torch import nn

from clip import TextEncoder
from dassl.config import CfgNode, Key
from dassl.data import TaskSpace
from dassl.engine import TRAINER_REGISTRY
from dassl.utils import UserError
from prompting.fitting import Fitting
from prompting.heads import score
from prompting.precision import PRECISIONS
from prompting.prompter import Features, ModelOutput, Prompter
from prompting.templates import TemplatePrompter

from ._base import PromptTrainer

RATIOS = tuple(i / 10 for i in range(1, 11))  # the values tried by SEARCH


class AdapterPrompter(TemplatePrompter):
    """Hand-written templates, and an adapter of the image feature f before normalisation.

    f' = r A(f) + (1 - r) f,   A(f) = ReLU(W2 ReLU(W1 f)),   W1 (e/k, e), W2 (e, e/k), no biases
    """

    def __init__(self, options: CfgNode, space: TaskSpace, text: TextEncoder):
        super().__init__(space, text)
        width, hidden = text.out_dim, text.out_dim // options.REDUCTION
        if hidden < 1:
            raise UserError(
                f"TRAINER.CLIP_ADAPTER.REDUCTION must be at most {width}, the width of the image "
                f"feature; got {options.REDUCTION}"
            )
        layers = (nn.Linear(width, hidden, bias=False), nn.Linear(hidden, width, bias=False))
        self.adapter = nn.Sequential(layers[0], nn.ReLU(), layers[1], nn.ReLU())
        self.register_buffer("ratio", torch.tensor(options.RATIO))

    def adapt(self, features):
        """The adapted features f' (B, e) of f (B, e)."""
        return self.ratio * self.adapter(features.float()) + (1 - self.ratio) * features.float()


@TRAINER_REGISTRY.register()
class CLIPAdapter(PromptTrainer):
    """A small residual network on the image feature, each task separately."""

    KEY = "CLIP_ADAPTER"
    DEFAULTS = dict(
        PREC=Key("fp32", choices=PRECISIONS),
        REDUCTION=Key(4, least=1),  # k: width of the image feature / hidden width
        RATIO=Key(0.2, above=0, most=1),  # r: weight of the adapted feature
        SEARCH=False,  # after training, choose RATIO from 0.1, 0.2 ... 1 on the validation images
    )
    free_options = ("SEARCH",)

    def check_cfg(self, cfg: CfgNode) -> None:
        if cfg.TRAINER.CLIP_ADAPTER.SEARCH:
            self.refused_labels = {"multi_label": "SEARCH chooses RATIO by the accuracy"}
            self.label_remedy = "set TRAINER.CLIP_ADAPTER.SEARCH to False"

    @torch.no_grad()
    def build_prompter(self, options: CfgNode, space: TaskSpace, text: TextEncoder) -> Prompter:
        return AdapterPrompter(options, space, text)

    def build_fitting(self, options: CfgNode) -> Fitting:
        return Fitting(tune=self.tune, tuned_values=("RATIO",) if options.SEARCH else ())

    def forward(
        self,
        features: Features,
        class_mask: torch.Tensor | None = None,
        text_features: torch.Tensor | None = None,
    ) -> ModelOutput:
        adapted = {"global": self.model.prompter.adapt(features["global"])}
        return self.model.forward_features(adapted, class_mask, text_features)

    def tune(self):
        features, label, _ = self.split_features("val")
        ratio, values = self.model.prompter.ratio, {}
        for value in RATIOS:
            ratio.fill_(value)
            logits = self.forward(features).logits
            values[value] = score(self.cfg, self.dm.space, logits, label).item()
        best = max(values, key=values.get)  # the smallest of equals
        ratio.fill_(best)
        print(f"ratio {best}: {values[best]:.2f}% on {len(label)} validation images")

    def method_name(self) -> str:
        return "CLIP-Adapter"
