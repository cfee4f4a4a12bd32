"""Trainers without CLIP, and comparisons of their weights."""

import torch
from torch import nn

from dassl.engine import TrainerX
from dassl.optim import build_lr_scheduler, build_optimizer


class Plain(TrainerX):
    """A trainer as written for Dassl: no ``suite``, its own forward_backward and update_lr."""

    def build_model(self):
        classes = self.dm.num_classes
        self.model = nn.Sequential(nn.Flatten(), nn.Linear(3 * 32 * 32, classes), nn.Dropout(0.1))
        self.optim = build_optimizer(self.model, self.cfg.OPTIM)
        self.sched = build_lr_scheduler(self.optim, self.cfg.OPTIM)
        self.register_model("model", self.model, self.optim, self.sched)

    def forward_backward(self, batch):
        image, label, _ = self.parse_batch_train(batch)
        loss = nn.functional.cross_entropy(self.model(image), label)
        self.model_backward_and_update(loss)
        if (self.batch_idx + 1) == self.num_batches:
            self.update_lr()
        return {"loss": loss.item()}


class Each(Plain):
    """The same, one task at a time."""

    suite = "each"


def weights(trainer):
    return {k: v.clone() for k, v in trainer._models["model"].state_dict().items()}


def same(a, b):
    return all(torch.equal(a[key], b[key]) for key in a | b)
