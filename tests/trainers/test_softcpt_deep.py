"""SoftCPT in depth against its equations, and where it is SoftCPT."""

import pytest
import torch

import softcpt
from dassl.utils import UserError
from prompting.soft_deep import DeepSoftPrompter
from tests.conftest import TASKS
from tests.reference import images, promptsrc
from tests.reference import prompts as naive
from tests.trainers._compare import NAMES, OWNER, SIZES, agree, naive_leaf, wide

VIT = ("MODEL.BACKBONE.NAME", "tiny-vit/random")
LENGTHS = {"N_CTX": 3, "TASK_N_CTX": 2, "CLASS_N_CTX": 2}


def words(**options):
    options = {**LENGTHS, **options}
    return [w for key, value in options.items() for w in (f"TRAINER.MTCOOP.{key}", value)]


def make(build, **options):
    trainer = build("MTCoOp", *VIT, *words(**options))
    for parameter in trainer.model.prompter.parameters():
        wide(parameter)
    return trainer


@pytest.fixture(scope="module")
def batch():
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randn(4, 3, 32, 32, generator=generator)
    task, label = torch.tensor([0, 2, 0, 2]), torch.tensor([1, 3, 2, 0])
    return {"img": pixels, "label": label, "task": task}


def leaves_of(trainer):
    named = trainer.model.prompter.named_parameters()
    return {name: naive_leaf(parameter) for name, parameter in named}


def naive_layers(leaves, task, cls, depth):
    """The contexts (m, d) of the text blocks for one task feature and one class feature."""
    joined = task if cls is None else torch.cat([cls, task])
    made = [(joined @ leaves["meta.proj"]).view(-1, 64)]
    if "later.up" in leaves:
        ranks = (joined @ leaves["later.proj"]).view(depth - 1, len(made[0]), -1)
        made += list(ranks @ leaves["later.up"])
    elif depth > 1:
        made += list((joined @ leaves["later.proj"]).view(depth - 1, -1, 64))
    return made


def naive_features(trainer, leaves, batch, token_ids, depth):
    """Text features (C, e) and image features (B, e)."""
    weights = {key: value.double() for key, value in trainer.clip.state_dict().items()}

    def encode(name, ctx, deep=()):
        x, eot = naive.prompt(*name, ctx, "end", weights)
        return naive.encode(x, eot, weights, 1, deep=deep)

    tasks = [encode(name, leaves["tasks.ctx"]) for name in token_ids([t.name for t in TASKS])]
    text = []
    for t, name in zip(OWNER, token_ids(NAMES), strict=True):
        cls = encode(name, leaves["classes.ctx"]) if "classes.ctx" in leaves else None
        first, *later = naive_layers(leaves, tasks[t], cls, depth)
        text.append(encode(name, first, later))
    found = []
    for t, image in zip(batch["task"].tolist(), batch["img"].double(), strict=True):
        tokens = []
        if "couplings.0.weight" in leaves:
            for i, ctx in enumerate(naive_layers(leaves, tasks[t], None, depth)):
                low = ctx @ leaves["down"] if "down" in leaves else ctx
                tokens.append(
                    low @ leaves[f"couplings.{i}.weight"].T + leaves[f"couplings.{i}.bias"]
                )
        found.append(images.encode(image, weights, 2, tokens=tokens))
    return torch.stack(text), torch.stack(found)


CASES = [
    {"DEPTH": 2},
    {"DEPTH": 2, "CSC": True},
    {"DEPTH": 1, "IMAGE_PROMPTS": True},
    {"DEPTH": 2, "IMAGE_PROMPTS": True},
    {"DEPTH": 2, "IMAGE_PROMPTS": True, "RANK": 5},
]


@pytest.mark.parametrize("options", CASES, ids=str)
def test_equations(build, batch, token_ids, close, options):
    trainer = make(build, **options)
    assert trainer.method_name().endswith(", rank 5") == ("RANK" in options)
    leaves = leaves_of(trainer)
    text, image = naive_features(trainer, leaves, batch, token_ids, options["DEPTH"])
    scores = naive.logits(image, text, trainer.clip.logit_scale.double())
    loss = naive.loss(scores, batch["label"].tolist(), batch["task"].tolist(), SIZES)
    agree(trainer, batch, scores, {"loss": loss}, list(leaves.values()), close)


def test_anchors(build, batch, token_ids, close):
    """The softmax of an image is over the classes of its task."""
    weights = {"ANCHOR_TEXT": 25.0, "ANCHOR_IMAGE": 10.0, "ANCHOR_LOGITS": 2.0}
    trainer = make(build, DEPTH=2, IMAGE_PROMPTS=True, **weights)
    assert trainer.method_name() == "SoftCPT-NATA, depth 2, images, anchors"
    leaves = leaves_of(trainer)
    text, image = naive_features(trainer, leaves, batch, token_ids, 2)
    scale = trainer.clip.logit_scale.double()
    scores = naive.logits(image, text, scale)
    text0 = trainer.templates.features.double()
    image0 = trainer.clip.encode_image(batch["img"]).double()
    wanted = {
        "loss": naive.loss(scores, batch["label"].tolist(), batch["task"].tolist(), SIZES),
        **promptsrc.losses(image, text, image0, text0, scale),
    }
    owner = torch.tensor(OWNER)
    parts = [
        promptsrc.losses(
            image[b : b + 1], text[owner == t], image0[b : b + 1], text0[owner == t], scale
        )
        for b, t in enumerate(batch["task"].tolist())
    ]
    wanted["logits"] = sum(part["logits"] for part in parts) / len(parts)
    wanted = {
        "loss": wanted["loss"],
        "text": 25 * wanted["text"],
        "image": 10 * wanted["image"],
        "logits": 2 * wanted["logits"],
    }
    agree(trainer, batch, scores, wanted, list(leaves.values()), close)


def test_anchors_of_sampled_classes(build, batch):
    """Classes that a step does not score are in none of the distances."""
    weights = {"ANCHOR_TEXT": 1.0, "ANCHOR_LOGITS": 1.0}
    trainer = make(build, CSC=True, CLS_SAMPLE_RATE=0.3, **weights)
    mask = torch.tensor([1, 1, 1, 0, 0, 1, 0, 0, 1]).bool()  # of C = 3 + 2 + 4 classes
    scale, owner = trainer.clip.logit_scale.double(), torch.tensor(OWNER)
    output = trainer.forward(trainer.image_features(batch), mask)
    found = trainer.compute_loss(output, batch, mask)
    text, text0 = output.text_features.double(), trainer.templates.features.double()
    image = output.image_features.double()
    wanted = promptsrc.losses(image, text[mask], image, text0[mask], scale)
    parts = []
    for row, t in zip(image[:, None], batch["task"].tolist(), strict=True):
        here = mask & (owner == t)
        parts.append(promptsrc.losses(row, text[here], row, text0[here], scale)["logits"])
    wanted["logits"] = torch.stack(parts).mean()
    for name in ("text", "logits"):
        torch.testing.assert_close(found[name].double(), wanted[name], rtol=1e-4, atol=1e-6)


def test_depth_1_is_softcpt(build, batch):
    trainer = make(build)
    prompter, space = trainer.model.prompter, trainer.dm.space
    assert type(prompter).__name__ == "SoftPrompter" and not trainer.anchors
    deep = DeepSoftPrompter(
        trainer.cfg.TRAINER.MTCOOP, space, trainer.clip.text_tower, trainer.clip
    )
    deep.load_state_dict(prompter.state_dict())
    expected = trainer.forward(trainer.image_features(batch)).logits
    trainer.model.prompter = deep
    assert torch.equal(trainer.forward(trainer.image_features(batch)).logits, expected)


@pytest.mark.parametrize("options", [CASES[1], CASES[3]], ids=str)
def test_it_learns_and_python_predicts_with_it(run, toy_folder, tmp_path, options):
    learning = ("OPTIM.MAX_EPOCH", 8, "OPTIM.LR", 0.02)
    content = run("MTCoOp", *VIT, *words(**options), *learning)
    loaded = softcpt.load_run(tmp_path / "run")
    for t, recorded in enumerate(content["tasks"]):
        right = 0
        for label, name in enumerate(TASKS[t].classnames):
            paths = [toy_folder / f"{t}_{label}_{i}.png" for i in (6, 7, 8)]
            right += sum(one.label == name for one in loaded.predict(paths, task=t))
        assert right == recorded["correct"]
    assert content["suite"]["value"] > 45  # guessing: 36


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"IMAGE_PROMPTS": True, "CSC": True}, "IMAGE_PROMPTS .*set CSC False"),
        ({"DEPTH": 2, "TOKEN_POSITION": "front"}, "DEPTH 2 .*TOKEN_POSITION end, not front"),
        ({"DEPTH": 3}, "MTCOOP.DEPTH is 3, .*2 blocks"),
    ],
)
def test_refused(build, options, message):
    with pytest.raises(UserError, match=message):
        make(build, **options)


def test_a_low_rank_has_few_parameters(build):
    counts = {}
    for rank in (0, 4):
        trainer = make(build, DEPTH=2, IMAGE_PROMPTS=True, RANK=rank)
        counts[rank] = trainer.results()["trainable"]["parameters"]
    first = 2 * 64 + 64 * 3 * 64
    assert counts[0] == first + 64 * 3 * 64 + 2 * (64 * 64 + 64)
    assert counts[4] == first + 64 * 3 * 4 + 4 * 64 + 64 * 4 + 2 * (4 * 64 + 64)
