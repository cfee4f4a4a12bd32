"""LP-CLIP: logistic regression on frozen image features. https://arxiv.org/abs/2103.00020

C is chosen as in CoOp's and SoftCPT's comparisons, https://arxiv.org/abs/2109.01134.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import nn

from clip import TextEncoder
from dassl.config import CfgNode, Key
from dassl.data.datasets import build_dataset
from dassl.data.tasks import TaskSpace
from dassl.engine import TRAINER_REGISTRY
from dassl.utils import UserError
from dassl.utils.threads import set_threads
from prompting.fitting import Fitting
from prompting.heads import Head, require_every_class, score
from prompting.precision import PRECISIONS
from prompting.prompter import Features, ModelOutput, Prompter

from ._base import PromptTrainer

if TYPE_CHECKING:
    from sklearn.linear_model import LogisticRegression

GRID = (6, 4, 2, 0, -2, -4, -6)  # log10 of the first values of C
HALVINGS = 8
SWAPPED = {"overall_acc": "mean_acc", "mean_acc": "overall_acc"}


class LinearHead(Head):
    """logits = W f(x) + b on the un-normalised feature f(x)."""

    def __init__(self, classes: int, width: int):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(classes, width))  # (C, e)
        self.bias = nn.Parameter(torch.zeros(classes))  # (C,)

    def forward(self, x):
        """Logits (B, C) of features (B, e)."""
        with torch.autocast(x.device.type, enabled=False):
            return F.linear(x.float(), self.weight, self.bias)

    def copy_from(self, model: LogisticRegression) -> None:
        """Copy a fitted regression; with two classes it has only the row of the second."""
        weight, bias = torch.from_numpy(model.coef_), torch.from_numpy(model.intercept_)
        if len(weight) < len(self.weight):
            weight = torch.cat([torch.zeros_like(weight), weight])
            bias = torch.cat([torch.zeros_like(bias), bias])
        self.weight.data.copy_(weight)
        self.bias.data.copy_(bias)


@TRAINER_REGISTRY.register()
class LinearProbe(PromptTrainer):
    """Logistic regression on frozen features, C chosen on val images; each task separately."""

    KEY = "LP"
    DEFAULTS = dict(
        PREC=Key("fp16", choices=PRECISIONS),
        # inverse strength of the L2 penalty; 0: chosen on the validation images
        C=Key(0.0, least=0),
        MAX_ITER=Key(1000, least=1),  # iterations of the solver, lbfgs
        UPSTREAM_METRICS=False,  # evaluate each task by the other metric, as the released code
    )
    sgd = False
    steps_rule = "fitted"
    refused_labels = {"multi_label": "its solver is for one class per image"}

    def check_cfg(self, cfg: CfgNode) -> None:
        options = cfg.TRAINER.LP
        if options.UPSTREAM_METRICS and cfg.TEST.METRIC != "per_task":
            raise UserError(
                "TRAINER.LP.UPSTREAM_METRICS swaps the metrics of the tasks, which are used only "
                f"with TEST.METRIC per_task; got {cfg.TEST.METRIC}"
            )

    def build_data_loader(self):
        if self.cfg.TRAINER.LP.UPSTREAM_METRICS:
            dataset = self._dataset or build_dataset(self.cfg)
            tasks = [replace(task, metric=SWAPPED[task.metric]) for task in dataset.space.tasks]
            self._dataset = dataset.with_space(TaskSpace(tuple(tasks)))
        super().build_data_loader()

    def build_prompter(self, options: CfgNode, space: TaskSpace, text: TextEncoder) -> Prompter:
        return LinearHead(space.num_classes, text.out_dim)

    def build_fitting(self, options: CfgNode) -> Fitting:
        return Fitting(fit=self.fit, tuned_values=() if options.C else ("C",))

    def forward(
        self,
        features: Features,
        class_mask: torch.Tensor | None = None,
        text_features: torch.Tensor | None = None,
    ) -> ModelOutput:
        return ModelOutput(self.model.prompter(features["global"]))

    def bound_tensors(self) -> dict[str, list[str]]:
        return dict.fromkeys(("weight", "bias"), self.dm.space.classnames)

    def fit(self):
        space, options = self.dm.space, self.cfg.TRAINER.LP
        features, label, _ = self.split_features("train")
        require_every_class(space, label, self.method_name())
        if space.num_classes == 1:
            return  # always right
        x, y = features["global"].double().cpu().numpy(), label.cpu().numpy()
        head = self.model.prompter
        set_threads(x.size * space.num_classes)
        if options.C:
            head.copy_from(regression(x, y, options.C, options.MAX_ITER))
            return
        val, val_label, _ = self.split_features("val")
        models: dict[float, LogisticRegression] = {}

        def quality(exponent: float) -> float:
            if exponent not in models:
                models[exponent] = regression(x, y, 10.0**exponent, options.MAX_ITER)
            head.copy_from(models[exponent])
            return score(self.cfg, space, head(val["global"]), val_label).item()

        best = choose_exponent(quality)
        print(f"C {10.0**best:.4g}: {quality(best):.2f}% on {len(val_label)} validation images")

    def method_name(self) -> str:
        upstream = self.cfg.TRAINER.LP.UPSTREAM_METRICS
        return "LP-CLIP (upstream's metrics)" if upstream else "LP-CLIP"


def regression(x, y, c: float, max_iter: int) -> LogisticRegression:
    """The minimum of |W|^2 / 2 + C Σ_i CE(W x_i + b, y_i), for features (N, e), labels (N,)."""
    # imported here, as it takes a second
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression
    from threadpoolctl import threadpool_limits

    with warnings.catch_warnings(), threadpool_limits(torch.get_num_threads()):
        warnings.simplefilter("ignore", ConvergenceWarning)  # C 1e6 rarely converges
        warnings.filterwarnings("ignore", "The number of unique classes", UserWarning)  # 1 shot
        return LogisticRegression(C=c, max_iter=max_iter).fit(x, y)


def choose_exponent(quality: Callable[[float], float]) -> float:
    """log10 of C: the best of :data:`GRID`, refined by eight bisections of one decade either side.

    Each keeps the better end of the interval (the lower of equals) and moves the other end to the
    middle. The better end of the last interval is returned.
    """
    peak = max(GRID, key=quality)  # the largest of equals
    low, high = peak - 1.0, peak + 1.0
    best = low
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        if quality(low) < quality(high):
            best, low = high, middle
        else:
            best, high = low, middle
    return best
