"""VPT, IVLP and MaPLe against their equations, where they agree, and released checkpoints."""

import pytest
import torch

from clip import load_backbone
from dassl.utils import UserError, load_checkpoint
from tests.conftest import TASKS
from tests.reference import deep
from tests.reference import prompts as naive
from tests.trainers import _released as released
from tests.trainers._compare import agree, naive_leaf, wide

ONE = ("DATASET.SUBSAMPLE_TASKS", "task2")
NAMES = TASKS[2].classnames
SIZES = {  # of a text tower of 2 blocks and an image tower of 3
    "VPT": {"N_CTX_VISION": 3, "PROMPT_DEPTH_VISION": 3},
    "IVLP": {"PROMPT_DEPTH_VISION": 3, "PROMPT_DEPTH_TEXT": 2},
    "MaPLe": {"PROMPT_DEPTH": 2},
    "PromptSRC": {"PROMPT_DEPTH_VISION": 3, "PROMPT_DEPTH_TEXT": 2, "GPA_MEAN": 2},
}
HEADS = {"text": 1, "image": 2}


def make(build, method, *more, **options):
    options = {**SIZES[method], **options}
    pairs = [(f"TRAINER.{method.upper()}.{key}", value) for key, value in options.items()]
    trainer = build(method, *ONE, *(word for pair in pairs for word in pair), *more)
    for i, parameter in enumerate(trainer.model.prompter.parameters()):
        if not more:
            wide(parameter)
            with torch.no_grad():
                parameter.mul_(1 + i)
    return trainer


@pytest.fixture(scope="module")
def weights():
    state = load_backbone("tiny-vit/random").state_dict()
    return {key: value.double() for key, value in state.items()}


@pytest.fixture(scope="module")
def images():
    """Pixels (B, 3, H, W) and labels in the last toy task."""
    pixels = torch.randn(3, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    labels = {"label": torch.tensor([0, 3, 2]), "task": torch.zeros(3, dtype=torch.long)}
    return {"img": pixels, **labels}


def words_after(n_ctx, weights):
    """Embeddings of the words of "a photo of a" that ``n_ctx`` tokens leave over."""
    ids = load_backbone("tiny/random").text_tower.tokenizer.encode("a photo of a")[n_ctx:]
    return weights["token_embedding.weight"][ids]


def check(trainer, images, weights, ids, leaves, contexts, tokens, close):
    """Compare with text contexts (the words of the template if None) and image tokens, by layer."""
    if contexts is None:
        words = words_after(0, weights)
        text = deep.text_features(ids, words[:0], [], words, weights, HEADS["text"])
    else:
        words = words_after(len(contexts[0]), weights)
        ctx, *later = contexts
        text = deep.text_features(ids, ctx, later, words, weights, HEADS["text"])
    pixels = images["img"].double()
    scale = weights["logit_scale"]
    found = deep.image_features(pixels, tokens, weights, HEADS["image"])
    scores = naive.logits(found, text, scale)
    loss = naive.loss(scores, images["label"].tolist(), [0] * 3, [4])
    agree(trainer, images, scores, {"loss": loss}, list(leaves.values()), close)


def leaves_of(trainer):
    named = trainer.model.prompter.named_parameters()
    return {name: naive_leaf(parameter) for name, parameter in named}


def test_vpt(build, images, weights, token_ids, close):
    trainer = make(build, "VPT")
    leaves = leaves_of(trainer)
    tokens = list(leaves["tokens"])
    check(trainer, images, weights, token_ids(NAMES), leaves, None, tokens, close)


@pytest.mark.parametrize(
    "options", [{}, {"PROMPT_DEPTH_VISION": 0, "N_CTX_TEXT": 4}, {"N_CTX_TEXT": 5}], ids=str
)
def test_ivlp(build, images, weights, token_ids, close, options):
    trainer = make(build, "IVLP", **options)
    leaves = leaves_of(trainer)
    contexts = [leaves["contexts.ctx"], *leaves["contexts.deep"]]
    tokens = list(leaves.get("tokens", []))
    assert trainer.method_name() == ("IVLP" if tokens else "IVLP (language only)")
    if len(contexts[0]) > 4:  # no words stand behind a context that does not start from them
        assert not len(trainer.model.prompter.contexts.words)
    check(trainer, images, weights, token_ids(NAMES), leaves, contexts, tokens, close)


def test_maple(build, images, weights, token_ids, close):
    trainer = make(build, "MaPLe")
    leaves = leaves_of(trainer)
    contexts = [leaves["contexts.ctx"], *leaves["contexts.deep"]]
    linears = [[leaves[f"couplings.{i}.{part}"] for part in ("weight", "bias")] for i in (0, 1)]
    tokens = deep.couplings(contexts, linears)
    check(trainer, images, weights, token_ids(NAMES), leaves, contexts, tokens, close)


def test_they_start_as_published(build):
    prompter = make(build, "MaPLe", "SEED", 1).model.prompter
    table = load_backbone("tiny-vit/random").token_embedding.weight
    ids = load_backbone("tiny-vit/random").text_tower.tokenizer.encode("a photo of a")
    torch.testing.assert_close(prompter.contexts.ctx.data, table[ids[:2]])
    torch.testing.assert_close(prompter.contexts.words, table[ids[2:]])
    make_later = make(build, "MaPLe", "SEED", 1, PROMPT_DEPTH=2).model.prompter.couplings
    assert not torch.equal(make_later[0].weight, make_later[1].weight)


def test_maple_with_zero_couplings_has_the_text_of_ivlp(build, images):
    """Zero tokens still take attention: image features are those of IVLP with zero tokens, and
    not those of language-only prompts, of which only the text features are the same."""
    maple = make(build, "MaPLe")
    alone = make(build, "IVLP", PROMPT_DEPTH_VISION=0)
    zeros = make(build, "IVLP", PROMPT_DEPTH_VISION=2)
    with torch.no_grad():
        for coupling in maple.model.prompter.couplings:
            coupling.weight.zero_()
            coupling.bias.zero_()
        for other in (alone, zeros):
            contexts = maple.model.prompter.contexts.state_dict()
            other.model.prompter.contexts.load_state_dict(contexts)
        zeros.model.prompter.tokens.zero_()
    found, text, both = (t.forward(t.image_features(images)) for t in (maple, alone, zeros))
    torch.testing.assert_close(found.text_features, text.text_features)
    torch.testing.assert_close(found.image_features, both.image_features)
    torch.testing.assert_close(found.logits, both.logits)
    assert (found.image_features - text.image_features).abs().max() > 1e-3


@pytest.mark.parametrize("method", SIZES)
def test_a_resumed_run_is_the_same_bit_for_bit(build, run, tmp_path, method):
    options = [w for k, v in SIZES[method].items() for w in (f"TRAINER.{method.upper()}.{k}", v)]
    drawn = ("INPUT.TRANSFORMS", "('random_resized_crop', 'normalize')")
    words = (*ONE, *options, *drawn, "OPTIM.MAX_EPOCH", 3)
    whole = run(method, *words, output=tmp_path / "whole")
    trainer = build(method, *words, output=tmp_path / "stopped")
    with pytest.raises(KeyboardInterrupt):
        trainer.train_step = stop_in_epoch(trainer.train_step, 2)
        trainer.train()
    again = build(method, *words, output=tmp_path / "stopped")
    again.train()
    assert again.start_epoch == 2
    name = "prompt_learner/model.pth.tar-3"
    states = [load_checkpoint(tmp_path / f / name)["state_dict"] for f in ("whole", "stopped")]
    assert all(torch.equal(states[0][key], states[1][key]) for key in states[0])
    assert again.evaluator.tasks[0]["correct"] == whole["tasks"][0]["correct"]


def stop_in_epoch(train_step, epoch):
    def step(batch, step):
        if step.epoch == epoch:
            raise KeyboardInterrupt
        return train_step(batch, step)

    return step


@pytest.mark.parametrize(
    ("method", "option", "value", "message"),
    [
        ("MaPLe", "PROMPT_DEPTH", 3, r"TRAINER.MAPLE.PROMPT_DEPTH is 3, .* has 2 blocks"),
        ("IVLP", "PROMPT_DEPTH_TEXT", 3, r"IVLP.PROMPT_DEPTH_TEXT is 3, .* has 2 blocks"),
        ("IVLP", "PROMPT_DEPTH_VISION", 12, r"PROMPT_DEPTH_VISION is 12, .* has 3 blocks"),
        ("VPT", "PROMPT_DEPTH_VISION", 4, r"VPT.PROMPT_DEPTH_VISION is 4, .* has 3 blocks"),
    ],
)
def test_too_deep(build, method, option, value, message):
    with pytest.raises(UserError, match=message):
        make(build, method, **{option: value})


@pytest.mark.parametrize("method", ["VPT", "MaPLe"])
def test_a_resnet_is_refused(build, method):
    with pytest.raises(UserError, match=r"ModifiedResNet\) cannot take prompt tokens"):
        make(build, method, "MODEL.BACKBONE.NAME", "tiny/random")


def test_language_only_prompts_learn_on_a_resnet_with_stored_features(run, tmp_path):
    words = ("TRAINER.IVLP.PROMPT_DEPTH_VISION", 0, "TRAINER.IVLP.PROMPT_DEPTH_TEXT", 2)
    store = ("FEATURES.MODE", "full", "FEATURES.DIR", tmp_path / "store")
    plain = ("MODEL.BACKBONE.NAME", "tiny/random")
    found = [
        run("IVLP", *ONE, *words, *plain, *more, output=tmp_path / name)
        for name, more in (("off", ()), ("stored", store))
    ]
    assert found[0]["tasks"] == found[1]["tasks"]
    assert list((tmp_path / "store").rglob("*.safetensors"))


def test_features_of_a_tower_that_learns_are_not_stored(run, tmp_path):
    words = [w for k, v in SIZES["VPT"].items() for w in (f"TRAINER.VPT.{k}", v)]
    run("VPT", *ONE, *words, "FEATURES.MODE", "full", "FEATURES.DIR", tmp_path / "store")
    assert not list(tmp_path.rglob("store/**/*.safetensors"))


def released_state(trainer):
    """The learned tensors as the released code of MaPLe and PromptSRC names them."""
    state = {key: value.half() for key, value in trainer.model.prompter.state_dict().items()}
    frozen = {"text_encoder.ln_final.weight": torch.ones(64), "logit_scale": torch.zeros(())}
    out = {**frozen}
    later = "transformer.resblocks.{}.VPT_shallow"
    for i, tokens in enumerate(state.get("tokens", [])):
        out[f"image_encoder.{later.format(i) if i else 'VPT'}"] = tokens
    if "contexts.ctx" not in state:
        return out
    coupled = "couplings.0.weight" in state
    out["prompt_learner.ctx"] = state["contexts.ctx"]
    for i, ctx in enumerate(state["contexts.deep"]):
        old = f"text_encoder.{later.format(i + 1)}"
        out[f"prompt_learner.compound_prompts_text.{i}" if coupled else old] = ctx
    for key in [key for key in state if key.startswith("couplings.")]:
        _, i, part = key.split(".")
        old = f"compound_prompt_projections.{int(i) - 1}" if int(i) else "proj"
        out[f"prompt_learner.{old}.{part}"] = state[key]
    buffers = released.buffers(NAMES, 2, "tiny-vit/random")
    return {**out, **{f"prompt_learner.{key}": value for key, value in buffers.items()}}


@pytest.mark.parametrize(
    ("method", "module"),
    [
        ("VPT", "prompt_learner"),
        ("IVLP", "VLPromptLearner"),
        ("PromptSRC", "VLPromptLearner"),
        ("MaPLe", "MultiModalPromptLearner"),
    ],
)
def test_released_checkpoints(build, images, tmp_path, method, module):
    trainer = make(build, method)
    folder = released.save(tmp_path / "old", {module: released_state(trainer)}, epoch=5)
    expected = trainer.forward(trainer.image_features(images)).logits
    fresh = make(build, method, "SEED", 2)
    fresh.load_model(folder, epoch=5)
    found = fresh.forward(fresh.image_features(images)).logits
    torch.testing.assert_close(found, expected, rtol=2e-2, atol=2e-3)
    assert not torch.equal(found, expected)  # half precision, as it was saved


def test_a_released_checkpoint_of_another_method(build, tmp_path):
    state = released_state(make(build, "MaPLe"))
    folder = released.save(tmp_path / "old", {"MultiModalPromptLearner": state}, epoch=5)
    with pytest.raises(UserError, match=r"no VLPromptLearner .*MultiModalPromptLearner"):
        make(build, "IVLP").load_model(folder, epoch=5)


def test_the_log_says_what_memory_a_step_takes(run, tmp_path):
    words = [w for k, v in SIZES["VPT"].items() for w in (f"TRAINER.VPT.{k}", v)]
    for again in ("False", "True"):
        run("VPT", *ONE, *words, "COMPUTE.IMAGE_CHECKPOINT", again, output=tmp_path / again)
        log = (tmp_path / again / "log.txt").read_text()
        assert log.count("Images of a step: 8 images with 3 prompt tokens each") == 1
        assert ("recomputed" in log) == (again == "True")
    states = [
        load_checkpoint(tmp_path / again / "prompt_learner" / "model.pth.tar-2")["state_dict"]
        for again in ("False", "True")
    ]
    torch.testing.assert_close(*states)
