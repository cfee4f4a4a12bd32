"""CoT trainers of one task, and the naive side of the comparisons with them."""

import pytest
import torch

from prompting.prompter import ModelOutput
from tests.conftest import TASKS
from tests.reference import cot as naive
from tests.reference.prompts import loss as naive_loss
from tests.trainers._compare import naive_leaf, same_gradients, wide

NAMES = TASKS[2].classnames


def make(build, *options, task="task2"):
    """A CoT trainer of one task; option names are those of its node, or whole keys."""
    pairs = zip(options[::2], options[1::2], strict=True)
    words = [
        w for key, value in pairs for w in (key if "." in key else f"TRAINER.COT.{key}", value)
    ]
    return build("CoT", "DATASET.SUBSAMPLE_TASKS", task, *words)


def widen(trainer):
    """All learned tensors far from zero; their copies in double precision by name."""
    for parameter in trainer.model.prompter.parameters():
        wide(parameter)
    return {k: naive_leaf(p) for k, p in trainer.model.prompter.named_parameters()}


def net_of(leaves, name):
    layers = ("linear1.weight", "linear1.bias", "linear2.weight", "linear2.bias")
    return tuple(leaves[f"{name}.{layer}"] for layer in layers)


def chains_of(images, leaves, options):
    """The naive contexts P_1 ... P_N of every image."""
    ctx = leaves["chain.ctx"]
    nets = [
        net_of(leaves, f"chain.meta_nets.{0 if options['SHARED_META_NET'] else i}")
        for i in range(len(ctx))
    ]
    out = []
    for image in images:
        weights = [options["LINK_WEIGHT"]] * (len(ctx) - 1)
        if options["CONTROLLER"] and len(ctx) > 1:
            controller = net_of(leaves, "chain.controller")
            weights = naive.link_weights(image, controller, *options["LINK_RANGE"])
        out.append(
            naive.chain_contexts(image, ctx, nets, options["ACCUMULATE"], options["LINK"], weights)
        )
    return out


def check(trainer, batch, text, leaves, close, class_mask=None):
    """Logits, loss and the gradient of every learned tensor against naive text features."""
    found = trainer.forward({"global": batch["feat"]}, class_mask).logits
    expected = naive.logits(batch["feat"].double(), text, trainer.clip.logit_scale.double())
    kept = slice(None) if class_mask is None else class_mask
    close(found[:, kept], expected[:, kept])
    loss = trainer.compute_loss(ModelOutput(found), batch, class_mask)["loss"]
    wanted = naive_loss(
        expected, batch["label"].tolist(), batch["task"].tolist(), [len(NAMES)], class_mask
    )
    assert loss.item() == pytest.approx(wanted.item(), rel=1e-5)
    same_gradients(trainer.model.prompter, loss, wanted, leaves, close)


class Parrot:
    """What transformers has of a model, saying one thing."""

    eos_token_id = 0

    def __init__(self, says):
        self.says = says

    def __call__(self, text):
        return {"input_ids": [1, 2]}

    def generate(self, input_ids, **how):
        return torch.cat([input_ids, torch.full((len(input_ids), 1), 3)], 1)

    def batch_decode(self, ids, **how):
        return [self.says] * len(ids)
