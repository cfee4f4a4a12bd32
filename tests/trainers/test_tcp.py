"""TCP against its equations, and where it is KgCoOp."""

import pytest
import torch

from dassl.engine import Step
from dassl.utils import UserError, load_checkpoint
from tests.conftest import TASKS
from tests.reference import kgcoop
from tests.reference import prompts as naive
from tests.trainers._compare import KEEP, agree, naive_leaf, wide

ONE = ("DATASET.SUBSAMPLE_TASKS", "task2")
NAMES = TASKS[2].classnames
LAYER = ("TRAINER.TCP.LAYER", 1)


def written_features(trainer, template="a photo of a {}."):
    phrases = [template.format(name.replace("_", " ")) for name in NAMES]
    return trainer.clip.text_tower.encode_text(phrases).double()


def class_tokens(u, first, bias, second, last):
    """W2 QuickGELU(W1 u + b1) + b2 of one class, as tokens (4, d)."""
    u = u / u.norm()
    return (second @ naive.activation(first @ u + bias, True) + last).view(4, -1)


def naive_outcome(leaves, written, batch, ids, model, scale):
    """Logits and both losses from a naive rewrite."""
    ctx, *net = leaves
    text = []
    for (name, tail), u in zip(ids, written, strict=True):
        x, eot = naive.prompt(name, tail, ctx, "end", model["weights"])
        text.append(naive.encode(x, eot, **model, deep=[class_tokens(u, *net)]))
    text = torch.stack(text)
    scores = naive.logits(batch["feat"].double(), text, scale)
    loss = naive.loss(scores, batch["label"].tolist(), [0] * len(batch["label"]), [4])
    return scores, {"loss": loss, "distance": kgcoop.distance(text, written, 8.0)}


def test_equations(build, one_task, naive_model, token_ids, close):
    trainer = build("TCP", *LAYER, *ONE)
    prompter = trainer.model.prompter
    wide(prompter.prompts.ctx)
    leaves = [naive_leaf(p) for p in prompter.parameters()]
    written, scale = written_features(trainer), trainer.clip.logit_scale.double()
    ids = token_ids(NAMES, m=4)
    scores, losses = naive_outcome(leaves, written, one_task, ids, naive_model, scale)
    grads = agree(trainer, one_task, scores, losses, leaves, close)
    assert all(grad.abs().max() > 0 for grad in grads)


def test_a_few_steps(build, naive_model, token_ids, close):
    """Adam with the published eps, which is far from negligible."""
    optim = ("OPTIM.NAME", "adam", "OPTIM.ADAM_EPS", 1e-3)
    trainer = build("TCP", *LAYER, *optim, *ONE)
    trainer.set_model_mode("train")
    own = list(trainer.model.prompter.parameters())
    leaves = [naive_leaf(p) for p in own]
    written, scale = written_features(trainer), trainer.clip.logit_scale.double()
    by_hand = torch.optim.Adam(leaves, lr=0.002, eps=1e-3, weight_decay=5e-4)
    starts = [p.detach().clone() for p in leaves]
    for number, batch in enumerate(trainer.train_loader_x):
        batch = {**batch, "feat": trainer.image_features(batch)["global"]}
        ids = token_ids(NAMES, m=4)
        _, losses = naive_outcome(leaves, written, batch, ids, naive_model, scale)
        by_hand.zero_grad()
        sum(losses.values()).backward()
        by_hand.step()
        trainer.train_step(batch, Step(0, number, 100))
    assert number == 1
    for mine, theirs, start in zip(own, leaves, starts, strict=True):
        close(mine.detach() - start, theirs.detach() - start, 1e-3)


def test_without_class_tokens_it_is_kgcoop(run, tmp_path):
    contexts = []
    for method, options in (
        ("KgCoOp", ("TRAINER.KGCOOP.CTX_INIT", "")),
        ("TCP", ("TRAINER.TCP.CLASS_AWARE", False)),
    ):
        run(method, *ONE, *options, output=tmp_path / method)
        file = tmp_path / method / "prompt_learner" / "model.pth.tar-2"
        contexts.append(load_checkpoint(file)["state_dict"]["prompts.ctx"])
    assert torch.equal(*contexts)


def test_a_mask_leaves_the_other_classes_out(build, batch, close):
    trainer = build("TCP", *LAYER, "DATASET.SUBSAMPLE_TASKS", "all", dataset="Toy")
    part = trainer.task_trainers[2]
    mask = KEEP[5:]
    with torch.no_grad():
        every = part.model.text_features(torch.empty(0))
        chosen = part.model.text_features(torch.empty(0), mask)
    close(chosen[mask], every[mask].double())
    assert not chosen[~mask].any()


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("LAYER", 2, r"TRAINER.TCP.LAYER takes .* 1 to 1 here; got 2"),
        ("LAYER", 0, r"TRAINER.TCP.LAYER .*got 0"),
        ("REDUCTION", 65, r"TRAINER.TCP.REDUCTION divides .* 64; got 65"),
        ("N_CTX", 0, r"TRAINER.TCP.N_CTX .*got"),
    ],
)
def test_refused(build, key, value, message):
    with pytest.raises(UserError, match=message):
        build("TCP", *ONE, *LAYER, f"TRAINER.TCP.{key}", value)
