"""Checkpoints of CoOp's and SoftCPT's released code: what is computed from them, what is refused.

The files are made here, in the layout and with the pickled companions of the released ones.
"""

import json
import pickle

import pytest
import torch

import train
from dassl.utils import UserError
from tests.conftest import TASKS, toy_args
from tests.reference import prompts as naive
from tests.reference import softcpt as naive_softcpt
from tests.trainers import _released as released
from tests.trainers._compare import NAMES, OWNER
from tests.trainers._methods import SOFTCPT_VARIANTS as VARIANTS
from tests.trainers._methods import M, U, V
from tests.trainers._methods import options as small_contexts

GROUPS = [task.classnames for task in TASKS]


def options(*more):
    return [*small_contexts(), *(w if i % 2 else f"TRAINER.{w}" for i, w in enumerate(more))]


def context(*shape, seed=1):
    generator = torch.Generator().manual_seed(seed)
    return (0.05 * torch.randn(*shape, 64, generator=generator)).half()


def logits(trainer, batch):
    return trainer.forward({"global": batch["feat"]}).logits


def expected(trainer, batch, features):
    return naive.logits(batch["feat"].double(), features, trainer.clip.logit_scale.double())


def one_per_name(names, ctx, owner=None):
    """A context for each name: (n,) of (m, d)."""
    ctx = ctx.double()
    if ctx.dim() == 2:
        return [ctx] * len(names)
    return [ctx[i] for i in (owner or range(len(names)))]


@pytest.mark.parametrize("csc", [False, True])
def test_coop(build, batch, naive_model, token_ids, close, tmp_path, csc):
    names = GROUPS[2]
    ctx = context(len(names), M) if csc else context(M)
    folder = released.save(tmp_path / "old", released.coop(names, ctx))
    trainer = build("CoOp", "DATASET.SUBSAMPLE_TASKS", "task2", *options("COOP.CSC", csc))
    trainer.load_model(folder, epoch=50)
    features = naive.features(token_ids(names), one_per_name(names, ctx), "end", **naive_model)
    close(logits(trainer, batch), expected(trainer, batch, features))


@pytest.mark.parametrize("kind", ["", "CSC", "TSC"])
def test_hard_sharing(build, batch, naive_model, token_ids, close, tmp_path, kind):
    ctx = {"": context(M), "CSC": context(len(NAMES), M), "TSC": context(len(TASKS), M)}[kind]
    modules = released.hard_per_task(GROUPS, ctx) if kind == "TSC" else released.coop(NAMES, ctx)
    folder = released.save(tmp_path / "old", modules)
    more = (f"MTCOOPH.{kind}", "True") if kind else ()
    trainer = build("MTCoOpHard", *options(*more))
    trainer.load_model(folder, epoch=50)
    contexts = one_per_name(NAMES, ctx, OWNER if kind == "TSC" else None)
    features = naive.features(token_ids(NAMES), contexts, "end", **naive_model)
    close(logits(trainer, batch), expected(trainer, batch, features))


def softcpt_tensors(variant):
    """Task context, class context, projection of a variant."""
    u = context(len(TASKS), U) if variant[3] == "S" else context(U)
    v = None
    if variant[0] == "C":
        v = context(len(NAMES), V, seed=2) if variant[1] == "S" else context(V, seed=2)
    generator = torch.Generator().manual_seed(3)
    w = 0.05 * torch.randn(64 if v is None else 128, M * 64, generator=generator)
    return u, v, w


@pytest.mark.parametrize("variant", VARIANTS)
def test_softcpt(build, batch, naive_model, token_ids, close, tmp_path, capsys, variant):
    u, v, w = softcpt_tensors(variant)
    task_names = [task.name for task in TASKS]
    modules = released.softcpt(GROUPS, task_names, u, v, w, M)
    folder = released.save(tmp_path / "old", modules)
    switches = [word for key in VARIANTS[variant] for word in (f"MTCOOP.{key}", "True")]
    trainer = build("MTCoOp", *options("MTCOOP.PG_TYPE", "lin", *switches))
    trainer.load_model(folder, epoch=50)
    learned = {"U": u.double(), "V": None if v is None else v.double(), "W": w.double()}
    features = naive_softcpt.text_features(
        naive_model,
        {"tasks": token_ids(task_names), "classes": token_ids(NAMES)},
        OWNER,
        dict.fromkeys(("task", "class", "final"), "end"),
        learned,
    )
    close(logits(trainer, batch), expected(trainer, batch, features))
    assert "task names differ" not in capsys.readouterr().out


def test_other_task_names_are_told(build, tmp_path, capsys):
    u, v, w = softcpt_tensors("NATS")
    modules = released.softcpt(GROUPS, ["colours", "light", "stripes"], u, v, w, M)
    trainer = build("MTCoOp", *options("MTCOOP.TASK_CSC", "True"))
    trainer.load_model(released.save(tmp_path / "old", modules), epoch=50)
    assert "task names differ" in capsys.readouterr().out
    assert torch.equal(trainer.model.prompter.tasks.ctx, u.float())


def test_a_context_of_no_tokens(build, tmp_path):
    _, _, w = softcpt_tensors("NATA")
    empty = torch.zeros(0, 64).half()
    modules = released.softcpt(GROUPS, [task.name for task in TASKS], empty, None, w, M)
    trainer = build("MTCoOp", *options(), "TRAINER.MTCOOP.TASK_N_CTX", "0")
    trainer.load_model(released.save(tmp_path / "old", modules), epoch=50)
    assert torch.equal(trainer.model.prompter.meta.proj, w)


def test_the_best_on_validation_is_taken_without_an_epoch(build, tmp_path):
    folder = released.save(tmp_path / "old", released.coop(GROUPS[0], context(M)))
    released.save(folder, released.coop(GROUPS[0], context(M, seed=7)), best=True)
    trainer = build("CoOp", "DATASET.SUBSAMPLE_TASKS", "task0", *options())
    trainer.load_model(folder)
    assert torch.equal(trainer.model.prompter.prompts.ctx, context(M, seed=7).float())


# ---------------------------------------------------------------- base to new


def test_shared_contexts_go_on_to_other_classes(build, tmp_path):
    """Trained on the names of task 0 (3 classes), tested on those of task 2 (4 classes)."""
    ctx = context(M)
    folder = released.save(tmp_path / "coop", released.coop(GROUPS[0], ctx))
    trainer = build("CoOp", "DATASET.SUBSAMPLE_TASKS", "task2", *options())
    trainer.load_model(folder, epoch=50)
    assert torch.equal(trainer.model.prompter.prompts.ctx, ctx.float())
    u, v, w = softcpt_tensors("CATA")
    modules = released.softcpt(GROUPS[:1], ["stripes"], u, v, w, M)
    folder = released.save(tmp_path / "softcpt", modules)
    on_new = ("DATASET.SUBSAMPLE_TASKS", "task2", *options("MTCOOP.CSC", "True"))
    trainer = build("MTCoOp", *on_new)
    trainer.load_model(folder, epoch=50)
    assert torch.equal(trainer.model.prompter.classes.ctx, v.float())


@pytest.mark.parametrize("names", [GROUPS[0], ("one", "two", "three", "four")])
def test_contexts_per_class_do_not(build, tmp_path, names):
    ctx = context(len(names), M)
    folder = released.save(tmp_path / "old", released.coop(names, ctx))
    trainer = build("CoOp", "DATASET.SUBSAMPLE_TASKS", "task2", *options("COOP.CSC", "True"))
    with pytest.raises(UserError, match=rf"{len(names)} classes.* 4 classes"):
        trainer.load_model(folder, epoch=50)


# ---------------------------------------------------------------- refused


def test_another_method(build, tmp_path):
    folder = released.save(tmp_path / "coop", released.coop(NAMES, context(M)))
    with pytest.raises(UserError, match="task_prompt_learner"):
        build("MTCoOp", *options()).load_model(folder, epoch=50)
    modules = released.softcpt(GROUPS, ["a", "b", "c"], *softcpt_tensors("NATA"), M)
    folder = released.save(tmp_path / "softcpt", modules)
    with pytest.raises(UserError, match=r"prompt_learner.*prompt_gen"):
        build("MTCoOpHard", *options()).load_model(folder, epoch=50)
    del modules["prompt_gen"]
    folder = released.save(tmp_path / "part", modules)
    with pytest.raises(UserError, match=r"prompt_gen.*proj"):
        build("MTCoOp", *options()).load_model(folder, epoch=50)
    with pytest.raises(UserError, match="ZeroshotCLIP"):
        build("ZeroshotCLIP").load_model(folder, epoch=50)


def test_another_length_of_context(build, tmp_path):
    folder = released.save(tmp_path / "old", released.coop(NAMES, context(16)))
    with pytest.raises(UserError, match=r"\(16, 64\).*\(4, 64\)"):
        build("MTCoOpHard", *options()).load_model(folder, epoch=50)


@pytest.mark.parametrize("width", [64, 384])
def test_another_backbone(build, tmp_path, width):
    modules = released.coop(NAMES, context(M))
    generator = torch.Generator().manual_seed(9)
    for key in ("token_prefix", "token_suffix"):
        n, length, _ = modules["prompt_learner"][key].shape
        modules["prompt_learner"][key] = torch.randn(n, length, width, generator=generator)
    folder = released.save(tmp_path / "old", modules)
    with pytest.raises(UserError, match=r"another backbone.*--backbone"):
        build("MTCoOpHard", *options()).load_model(folder, epoch=50)


# ---------------------------------------------------------------- through the command line


def test_evaluation_and_base_to_new_as_published(toy, tmp_path):
    folder = released.save(tmp_path / "old", released.coop(NAMES, context(M)))
    with pytest.raises(pickle.UnpicklingError):
        torch.load(folder / released.MODULE / "model.pth.tar-50", weights_only=True)
    flags = ["--eval-only", "--model-dir", str(folder), "--load-epoch", "50"]
    args = toy_args("MTCoOpHard", *options(), output=tmp_path / "new", flags=flags)
    content = train.main(args)
    assert content["status"] == "complete" and content["suite"]["value"] > 0
    log = (tmp_path / "new" / "log.txt").read_text()
    assert "Loading the modules prompt_learner of released code" in log
    again = toy_args("MTCoOpHard", *options(), output=tmp_path / "own", flags=flags)
    assert (
        train.main(again)["tasks"]
        == json.loads((tmp_path / "new" / "results.json").read_text())["tasks"]
    )
