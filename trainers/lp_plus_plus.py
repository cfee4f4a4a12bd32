"""LP++: a linear probe whose weights are blended with text features, class by class.

https://arxiv.org/abs/2404.02285
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import nn

from clip import TextEncoder
from dassl.config import CfgNode, Key
from dassl.data import TaskSpace
from dassl.engine import TRAINER_REGISTRY
from dassl.utils.threads import set_threads
from prompting.fitting import Fitting
from prompting.heads import require_every_class, score
from prompting.precision import PRECISIONS
from prompting.prompter import Features, ModelOutput, Prompter
from prompting.templates import TemplatePrompter

from ._base import PromptTrainer

ALPHA_SCALE = 250.0  # the first alpha is this, times the mean cosine of images and their text
ALPHA_EVERY = 10  # iterations between two steps of alpha
MOMENTUM = 0.9  # of the steps of w and b
STARTS = ("sum", "mean")


class BlendedProbe(TemplatePrompter):
    """logit_c = <f, w_c> + b_c + alpha_c <f, t_c>, for normalised features f and t, unscaled.

    t: text features of the datasets' templates, frozen. w (C, e), b (C,) and alpha (C,) are
    learned.
    """

    makes_text_features = False

    def __init__(self, space, text):
        super().__init__(space, text)
        classes, width = self.features.shape
        self.weight = nn.Parameter(torch.zeros(classes, width))  # w
        bound = 1 / math.sqrt(width)  # as torch draws the bias of a linear layer
        self.bias = nn.Parameter(torch.empty(classes).uniform_(-bound, bound))
        self.alpha = nn.Parameter(torch.zeros(classes))

    def logits(self, x: torch.Tensor) -> torch.Tensor:
        """Logits (B, C), fp32, of normalised image features x (B, e)."""
        with torch.autocast(x.device.type, enabled=False):
            return F.linear(x, self.weight, self.bias) + self.alpha * (x @ self.features.T)


@TRAINER_REGISTRY.register()
class LPPlusPlus(PromptTrainer):
    """LP++, each task separately: full-batch steps whose sizes are computed from the data."""

    KEY = "LPPLUSPLUS"
    DEFAULTS = dict(
        PREC=Key("fp16", choices=PRECISIONS),
        ITERATIONS=Key(300, least=1),
        SEARCH=True,  # keep the iterate that is best on the validation images, the last of equals
        # augmented views whose features are averaged; 0: the image as at test time
        VIEWS=Key(1, least=0),
        # w_c starts as the sum of the features of the class's images, or as their mean; the
        # released code leaves the division out
        START=Key("sum", choices=STARTS),
        UPSTREAM_STEPS=False,  # alpha's steps add up all gradients so far, as in the released code
    )
    sgd = False
    steps_rule = "fitted"
    refused_labels = {"multi_label": "its solver is for one class per image"}

    @torch.no_grad()
    def build_prompter(self, options: CfgNode, space: TaskSpace, text: TextEncoder) -> Prompter:
        return BlendedProbe(space, text)

    def build_fitting(self, options: CfgNode) -> Fitting:
        return Fitting(fit=self.fit, tuned_values=("ITERATION",) if options.SEARCH else ())

    def forward(
        self,
        features: Features,
        class_mask: torch.Tensor | None = None,
        text_features: torch.Tensor | None = None,
    ) -> ModelOutput:
        x = F.normalize(features["global"].float(), dim=-1)
        return ModelOutput(self.model.prompter.logits(x), image_features=x)

    def fit(self):
        options, probe = self.cfg.TRAINER.LPPLUSPLUS, self.model.prompter
        features, label, _ = self.split_features("train", options.VIEWS)
        require_every_class(self.dm.space, label, self.method_name())
        x = F.normalize(features["global"], dim=-1)
        start(probe, x, label, options.START)
        set_threads(x.numel() * self.dm.space.num_classes)
        iterates = iterate(probe, x, label, options.UPSTREAM_STEPS)
        if not options.SEARCH:
            for _ in range(options.ITERATIONS):
                next(iterates)
            return
        val, val_label, _ = self.split_features("val")
        best, chosen, state = float("-inf"), 0, {}
        for number in range(1, options.ITERATIONS + 1):
            next(iterates)
            found = score(self.cfg, self.dm.space, self.forward(val).logits, val_label).item()
            if found >= best:
                best, chosen = found, number
                state = {name: value.clone() for name, value in probe.state_dict().items()}
        probe.load_state_dict(state)
        print(f"iteration {chosen}: {best:.2f}% on {len(val_label)} validation images")

    def bound_tensors(self) -> dict[str, list[str]]:
        return dict.fromkeys(("weight", "bias", "alpha"), self.dm.space.classnames)

    def method_name(self) -> str:
        return "LP++"


def start(probe: BlendedProbe, x: torch.Tensor, label: torch.Tensor, kind: str) -> None:
    """Set w and alpha from normalised training features x (N, e) and labels (N,)."""
    count = label.bincount(minlength=len(probe.weight))[:, None]  # (C, 1)
    total = torch.zeros_like(probe.weight).index_add_(0, label, x)
    probe.weight.copy_(total if kind == "sum" else total / count)
    cosine = (total / count * probe.features).sum(dim=-1)  # (C,), means over images
    probe.alpha.fill_(ALPHA_SCALE * cosine.mean())


def step_sizes(x: torch.Tensor, similarity: torch.Tensor) -> tuple[float, float]:
    """Step sizes of w and alpha: inverse bounds on the curvature of the mean cross-entropy.

    Args:
        x: (N, e) normalised features. similarity: (N, C) their cosines with the text features.
    """
    largest = torch.linalg.matrix_norm(x, 2).item() ** 2  # eigenvalue of x^T x
    return 4 * len(x) / largest, len(x) / (4 * similarity.square().sum(dim=0).max().item())


def iterate(
    probe: BlendedProbe, x: torch.Tensor, label: torch.Tensor, add_up: bool
) -> Iterator[None]:
    """Take one full-batch step of the mean cross-entropy at a time, without end.

    w and b move at each, with momentum; alpha moves at every tenth.

    Args:
        x: (N, e) normalised training features. label: (N,) their classes.
        add_up: alpha moves by the sum of its gradients at all iterations so far.
    """
    similarity, target = x @ probe.features.T, F.one_hot(label, len(probe.weight))  # (N, C)
    rate, alpha_rate = step_sizes(x, similarity)
    speed, bias_speed = torch.zeros_like(probe.weight), torch.zeros_like(probe.bias)
    gradients = torch.zeros_like(probe.alpha)
    number = 0
    while True:
        number += 1
        error = (probe.logits(x).softmax(dim=1) - target) / len(x)  # gradient of the logits
        gradient = (error * similarity).sum(dim=0)
        gradients += gradient
        probe.weight.sub_(rate * speed.mul_(MOMENTUM).add_(error.T @ x))
        probe.bias.sub_(rate * bias_speed.mul_(MOMENTUM).add_(error.sum(dim=0)))
        if number % ALPHA_EVERY == 0:
            probe.alpha.sub_(alpha_rate * (gradients if add_up else gradient))
        yield
