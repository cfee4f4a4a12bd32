"""CoCoOp against its equations, and what chunks, images and a silent meta-net do to it."""

import pytest
import torch

from dassl.utils import UserError
from prompting.prompter import ModelOutput
from tests.conftest import TASKS
from tests.reference import cocoop
from tests.reference import prompts as naive
from tests.trainers._compare import agree, naive_leaf, wide

ONE = ("DATASET.SUBSAMPLE_TASKS", "task2")
NAMES = TASKS[2].classnames


def make(build, *options):
    """CoCoOp on one task, its learned tensors far from where they start."""
    pairs = zip(options[::2], options[1::2], strict=True)
    trainer = build(
        "CoCoOp", *ONE, *(word for key, value in pairs for word in (f"TRAINER.COCOOP.{key}", value))
    )
    for parameter in trainer.model.prompter.parameters():
        wide(parameter)
    return trainer


@pytest.mark.parametrize("position", ["end", "middle", "front"])
@pytest.mark.parametrize("chunk", [0, 2])
def test_equations(build, one_task, naive_model, token_ids, close, position, chunk):
    trainer = make(build, "N_CTX", 3, "CLASS_TOKEN_POSITION", position, "CHUNK", chunk)
    names = [name for name, _ in trainer.model.prompter.named_parameters()]
    assert names[0] == "prompts.ctx"
    assert names[1:] == [
        f"meta_net.linear{i}.{part}" for i in (1, 2) for part in ("weight", "bias")
    ]
    ctx, *meta = leaves = [naive_leaf(p) for p in trainer.model.prompter.parameters()]
    images = one_task["feat"].double()
    text = cocoop.text_features(naive_model, token_ids(NAMES), ctx, meta, images, position)
    scale = trainer.clip.logit_scale.double()
    scores = torch.cat([naive.logits(x[None], t, scale) for x, t in zip(images, text, strict=True)])
    loss = naive.loss(scores, one_task["label"].tolist(), [0] * 5, [4])
    agree(trainer, one_task, scores, {"loss": loss}, leaves, close)


def counted(trainer, images):
    """Logits, and how many numbers are kept for the backward pass."""
    seen = []

    def class_mask(x):
        seen.append(x.numel())
        return x

    with torch.autograd.graph.saved_tensors_hooks(class_mask, lambda x: x):
        logits = trainer.forward({"global": images}).logits
    return logits, sum(seen)


def test_chunks_change_nothing_but_the_memory(build, one_task, close):
    logits, grads, kept = {}, {}, {}
    for chunk in (0, 1, 2, 4, 5):
        trainer = make(build, "N_CTX", 3, "CHUNK", chunk)
        logits[chunk], kept[chunk] = counted(trainer, one_task["feat"])
        loss = trainer.compute_loss(ModelOutput(logits[chunk]), one_task)["loss"]
        grads[chunk] = torch.autograd.grad(loss, list(trainer.model.prompter.parameters()))
    for chunk in (1, 2, 4):
        close(logits[chunk], logits[0].double(), 1e-6)
        for mine, whole in zip(grads[chunk], grads[0], strict=True):
            close(mine, whole.double())
        assert kept[chunk] < kept[0] / 10  # of the text tower, only what goes in
    assert kept[5] == kept[0]  # one chunk is not computed twice


@pytest.mark.parametrize("position", ["end", "middle"])
def test_a_meta_net_of_zeros_is_coop(build, one_task, close, position):
    trainer = make(build, "N_CTX", 3, "CLASS_TOKEN_POSITION", position)
    place = ("TRAINER.COOP.N_CTX", 3, "TRAINER.COOP.CLASS_TOKEN_POSITION", position)
    coop = build("CoOp", *ONE, *place)
    wide(coop.model.prompter.prompts.ctx)
    with torch.no_grad():
        for parameter in trainer.model.prompter.meta_net.linear2.parameters():
            parameter.zero_()
    logits, grads = [], []
    for one in (trainer, coop):
        logits.append(one.forward({"global": one_task["feat"]}).logits)
        loss = one.compute_loss(ModelOutput(logits[-1]), one_task)["loss"]
        grads.append(torch.autograd.grad(loss, one.model.prompter.prompts.ctx)[0])
    close(logits[0], logits[1].double(), 1e-6)
    close(grads[0], grads[1].double())


@torch.no_grad()
def test_an_image_is_scored_alike_in_every_batch(build, one_task, close):
    trainer = make(build, "N_CTX", 3)
    infer = trainer.build_inference("test")
    together = infer({"global": one_task["feat"]})
    single = torch.cat([infer({"global": x[None]}) for x in one_task["feat"]])
    # A matrix product may sum in another order for another number of rows: each cosine, at most 1,
    # then differs by some roundings of fp32, which the logit scale multiplies.
    bound = 8 * torch.finfo(torch.float32).eps * trainer.clip.logit_scale.exp().item()
    torch.testing.assert_close(single, together, rtol=0, atol=bound)


def test_dropped_classes(build, one_task, close):
    trainer = make(build, "N_CTX", 3, "CHUNK", 2)
    class_mask = torch.tensor([1, 0, 1, 1]).bool()
    x = torch.nn.functional.normalize(one_task["feat"], dim=-1)
    whole, kept = (trainer.model.text_features(x, part) for part in (None, class_mask))
    close(kept, whole[:, class_mask].double(), 1e-6)
    logits = trainer.forward({"global": one_task["feat"]}, class_mask).logits
    every = trainer.forward({"global": one_task["feat"]}).logits
    close(logits[:, class_mask], every[:, class_mask].double(), 1e-6)
    assert logits.shape == every.shape and not logits[:, ~class_mask].any()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("N_CTX", 0), r"TRAINER.COCOOP.N_CTX .*got 0"),
        (("CHUNK", -1), r"TRAINER.COCOOP.CHUNK .*got -1"),
        (("PREC", "half"), r"PREC takes one of fp16, fp32, amp; got 'half'"),
        (("CLASS_TOKEN_POSITION", "left"), r"takes one of end, middle, front; got 'left'"),
    ],
)
def test_refused(build, options, message):
    with pytest.raises(UserError, match=message):
        make(build, *options)
