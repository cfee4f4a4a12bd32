"""SoftCPT's six variants against their equations: values and gradients of all learned tensors."""

import pytest
import torch

from dassl.engine import Step
from dassl.utils import UserError
from prompting.meta_net import build_meta_net
from tests.conftest import TASKS
from tests.reference import softcpt as naive
from tests.trainers._compare import (
    KEEP,
    KEPT_BATCH,
    NAMES,
    OWNER,
    SCORED,
    compare,
    naive_leaf,
    wide,
)
from tests.trainers._methods import SOFTCPT_VARIANTS as VARIANTS
from trainers.mtcoop import upstream_steps

SAME = {
    place: dict.fromkeys(("task", "class", "final"), place) for place in ("end", "middle", "front")
}
CASES = [
    *((variant, "lin", SAME[place]) for variant in VARIANTS for place in SAME),
    *((v, kind, SAME["end"]) for v in VARIANTS if v[0] == "C" for kind in ("linmean", "lincls")),
    ("CSTA", "lin", {"task": "middle", "class": "front", "final": "end"}),
    ("NATS", "lin", {"task": "front", "class": "end", "final": "middle"}),
]


def make(build, variant, *more, kind="lin", positions=SAME["end"], lengths=(5, 3, 2)):
    """A SoftCPT trainer with contexts of ``lengths`` (final, task, class) tokens."""
    final, task, cls = lengths
    options = [
        *("PG_TYPE", kind, "N_CTX", final, "TASK_N_CTX", task, "CLASS_N_CTX", cls),
        *("TOKEN_POSITION", positions["final"], "TASK_TOKEN_POSITION", positions["task"]),
        *("CLASS_TOKEN_POSITION", positions["class"]),
        *(word for key in VARIANTS[variant] for word in (key, "True")),
        *more,
    ]
    pairs = zip(options[::2], options[1::2], strict=True)
    flat = [
        word
        for key, value in pairs
        for word in (key if "." in key else f"TRAINER.MTCOOP.{key}", value)
    ]
    return build("MTCoOp", *flat)


def learned_of(prompter):
    """The learned tensors by the names of the equations."""
    found = {"R": prompter.vectors}
    if prompter.vectors is None:
        found = {"U": prompter.tasks.ctx}
    found |= {"V": None, "W": prompter.meta.proj}
    if prompter.classes is not None:
        found["V"] = prompter.classes.ctx
    return found


def naive_names(token_ids):
    return {"tasks": token_ids([task.name for task in TASKS]), "classes": token_ids(NAMES)}


def check(trainer, naive_model, token_ids, close, batch, kind, positions, class_mask=None):
    """Compare with the equations; returns the gradients by name."""
    learned = learned_of(trainer.model.prompter)
    for tensor in learned.values():
        if tensor is not None:
            wide(tensor)
    leaves = {k: None if v is None else naive_leaf(v) for k, v in learned.items()}
    expected = naive.text_features(
        naive_model, naive_names(token_ids), OWNER, positions, leaves, kind, class_mask
    )
    names = {id(tensor): key for key, tensor in learned.items() if tensor is not None}
    order = [names[id(p)] for p in trainer.model.prompter.parameters() if p.requires_grad]
    grads = compare(trainer, batch, expected, [leaves[key] for key in order], close, class_mask)
    return dict(zip(order, grads, strict=True))


@pytest.mark.parametrize(
    ("variant", "kind", "positions"),
    [pytest.param(*case, id="-".join([*case[:2], *case[2].values()])) for case in CASES],
)
def test_equations(build, batch, naive_model, token_ids, close, variant, kind, positions):
    trainer = make(build, variant, kind=kind, positions=positions)
    assert trainer.method_name() == f"SoftCPT-{variant}"
    check(trainer, naive_model, token_ids, close, batch, kind, positions)


@pytest.mark.parametrize("variant", ["NATA", "CATA"])
def test_task_vectors(build, batch, naive_model, token_ids, close, variant):
    trainer = make(build, variant, "TASK_VECTORS", "True")
    assert trainer.method_name().startswith("SoftCPT*")
    check(trainer, naive_model, token_ids, close, batch, "lin", SAME["end"])


def test_vectors_in_the_place_of_task_features_change_nothing(build):
    named, starred = make(build, "NATA"), make(build, "NATA", "TASK_VECTORS", "True")
    with torch.no_grad():
        prompter = starred.model.prompter
        tasks = named.clip.text_tower.encode(named.model.prompter.tasks())
        prompter.vectors.copy_(tasks)
        prompter.meta.proj.copy_(named.model.prompter.meta.proj)
    images = {"global": torch.randn(4, 64)}
    assert torch.equal(starred.forward(images).logits, named.forward(images).logits)


@pytest.mark.parametrize("kind", ["lin", "linmean", "lincls"])
@pytest.mark.parametrize("variant", ["CATA", "CATS", "CSTA", "CSTS"])
def test_sampled_classes(build, naive_model, token_ids, close, variant, kind):
    trainer = make(build, variant, kind=kind, positions=SAME["middle"])
    batch = {"feat": torch.randn(5, 64), **KEPT_BATCH}
    grads = check(trainer, naive_model, token_ids, close, batch, kind, SAME["middle"], KEEP)
    if variant.startswith("CS"):
        assert not grads["V"][~SCORED].any()  # absent classes get no gradient
        assert all(row.any() for row in grads["V"][SCORED])


@pytest.mark.parametrize("variant", ["CATS", "CSTA"])
def test_kept_columns_are_those_of_all_classes(build, close, variant):
    trainer = make(build, variant)
    images = torch.randn(4, 64)
    whole, kept = (
        trainer.forward({"global": images}).logits,
        trainer.forward({"global": images}, KEEP).logits,
    )
    close(kept[:, KEEP], whole[:, KEEP].double(), 1e-6)


def test_shapes_of_the_variants(build):
    expected = {  # U, V, W for m=5, M=3, K=2, three tasks, nine classes, e = d = 64
        "NATA": ((3, 64), None, (64, 320)),
        "NATS": ((3, 3, 64), None, (64, 320)),
        "CATA": ((3, 64), (2, 64), (128, 320)),
        "CATS": ((3, 3, 64), (2, 64), (128, 320)),
        "CSTA": ((3, 64), (9, 2, 64), (128, 320)),
        "CSTS": ((3, 3, 64), (9, 2, 64), (128, 320)),
    }
    for variant, shapes in expected.items():
        learned = learned_of(make(build, variant).model.prompter)
        found = tuple(None if v is None else tuple(v.shape) for v in learned.values())
        assert found == shapes, variant


def test_words_start_task_and_class_contexts(build):
    words = ("TASK_CTX_INIT", "recognise the", "CLASS_CTX_INIT", "a photo of a")
    trainer = make(build, "CSTS", *words, "CTX_INIT", "this is one", lengths=(5, 0, 0))
    prompter, text = trainer.model.prompter, trainer.clip.text_tower
    for learner, phrase, groups in (
        (prompter.tasks, words[1], 3),
        (prompter.classes, words[3], 9),
    ):
        count = len(phrase.split())
        start = text.embed(text.tokenize([phrase])[0, 1 : 1 + count])
        assert torch.equal(learner.ctx, start.expand(groups, -1, -1))
    assert prompter.names.n_ctx == 3  # CTX_INIT changes only the number of generated tokens
    assert prompter.names.ctx is None
    assert prompter.meta.proj.shape == (128, 3 * 64)


def test_no_task_context(build, batch, naive_model, token_ids, close):
    trainer = make(build, "CATA", lengths=(5, 0, 0))
    assert [p.shape for p in trainer.model.prompter.parameters()] == [(128, 320)]
    weight = naive_leaf(trainer.model.prompter.meta.proj)
    none = torch.zeros(0, 64).double()
    expected = naive.text_features(
        naive_model,
        naive_names(token_ids),
        OWNER,
        SAME["end"],
        {"U": none, "V": none, "W": weight},
    )
    compare(trainer, batch, expected, [weight], close)


def test_meta_network_starts_as_published():
    torch.manual_seed(0)
    meta = build_meta_net("lin", feature_dim=64, n_ctx=16, ctx_dim=64, with_classes=True, ratio=1)
    assert [name for name, _ in meta.named_parameters()] == ["proj"]  # no bias
    assert meta.proj.std().item() == pytest.approx(0.02, rel=0.02)


@pytest.mark.parametrize("variant", ["NATA", "CSTS"])
@pytest.mark.parametrize("kind", ["mlp", "transformer"])
def test_own_meta_networks(build, batch, variant, kind):
    trainer = make(build, variant, "PG_RATIO", 4, kind=kind)
    prompter = trainer.model.prompter
    contexts = prompter.generated_contexts(trainer.clip.text_tower)
    assert contexts.shape == ((3 if variant == "NATA" else 9), 5, 64)
    loss = trainer.compute_loss(trainer.forward({"global": batch["feat"]}), batch)["loss"]
    loss.backward()
    for name, tensor in prompter.named_parameters():
        # biases before a layer norm or a softmax may have a gradient of zero
        assert tensor.grad is not None, name
    if kind == "mlp":
        width = 64 if variant == "NATA" else 128
        assert prompter.meta.net[0].weight.shape == (width // 4, width)


def test_sampling_draws_are_of_the_batch_not_of_the_past(build):
    trainer = make(build, "CATA", "CLS_SAMPLE_RATE", 0.5)
    drawn = {}
    for order in ([(0, 0), (0, 1), (1, 0)], [(1, 0), (0, 1), (0, 0)]):
        for place in order:
            class_mask = trainer.choose_classes(KEPT_BATCH, Step(*place, 100))
            assert torch.equal(drawn.setdefault(place, class_mask), class_mask)
    assert len({tuple(class_mask.tolist()) for class_mask in drawn.values()}) > 1
    present = [0, 2, 6, 7]
    for class_mask in drawn.values():
        assert class_mask[present].all()
        assert [int(class_mask[a:b].sum()) for a, b in ((0, 3), (3, 5), (5, 9))] == [3, 1, 3]


def test_no_sampling_by_default(build):
    assert make(build, "CATA").choose_classes(KEPT_BATCH, Step(0, 0, 100)) is None


@pytest.mark.parametrize(
    ("csc", "precision", "steps"),
    [
        (False, "fp32", (3, 3)),
        (True, "fp16", (4, 4)),
        (False, "amp", (1, 3)),
        (True, "amp", (1, 4)),
    ],
)
def test_upstream_steps(csc, precision, steps):
    assert upstream_steps(csc, precision) == steps


@pytest.mark.parametrize(
    ("variant", "options", "message"),
    [
        ("NATA", ("CLS_SAMPLE_RATE", 0.1), "CLS_SAMPLE_RATE.*CSC True"),
        ("CATA", ("CLS_SAMPLE_RATE", 1.5), "CLS_SAMPLE_RATE.*got 1.5"),
        ("CATA", ("CLS_SAMPLE_RATE", -0.5), "CLS_SAMPLE_RATE.*got -0.5"),
        ("NATA", ("CLASS_CSC", "True"), "CLASS_CSC.*CSC True"),
        ("CSTA", ("CLASS_N_CTX", 0), "CLASS_CSC.*CLASS_N_CTX"),
        ("NATS", ("TASK_VECTORS", "True"), "TASK_VECTORS.*TASK_CSC False"),
        ("NATS", ("TASK_N_CTX", 0), "TASK_CSC.*TASK_N_CTX"),
        ("NATA", ("PG_TYPE", "linmean"), "PG_TYPE linmean .*CSC True"),
        ("NATA", ("PG_TYPE", "lincls"), "PG_TYPE lincls .*CSC True"),
        ("NATA", ("PG_TYPE", "linn"), "PG_TYPE.*got 'linn'.*lin"),
        ("NATA", ("PG_TYPE", "mlp", "PG_RATIO", 65), "PG_RATIO.*64.*got 65"),
        ("NATA", ("PG_TYPE", "mlp", "PG_RATIO", 0), "PG_RATIO.*got 0"),
        ("NATA", ("N_CTX", 0), "N_CTX.*got 0"),
        (
            "NATA",
            ("TASK_TOKEN_POSITION", "left"),
            "TASK_TOKEN_POSITION.*end, middle, front.*got 'left'",
        ),
        ("NATA", ("PREC", "fp8"), "PREC.*fp16, fp32, amp.*got 'fp8'"),
        ("NATA", ("INPUT.SIZE", "(224, 224)"), "INPUT.SIZE is"),
        ("NATA", ("MODEL.BACKBONE.NAME", ""), "MODEL.BACKBONE.NAME"),
    ],
)
def test_refused(build, variant, options, message):
    with pytest.raises(UserError, match=message):
        make(build, variant, *options)


def test_hard_sharing_refuses_two_owners(build):
    with pytest.raises(UserError, match=r"CSC .* TSC"):
        build("MTCoOpHard", "TRAINER.MTCOOPH.CSC", "True", "TRAINER.MTCOOPH.TSC", "True")
