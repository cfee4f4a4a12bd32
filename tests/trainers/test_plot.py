"""PLOT against its equations; its plan, its bounds, and the towers that it runs on."""

import open_clip
import pytest
import torch
from open_clip.model import CLIPTextCfg, CLIPVisionCfg
from safetensors.torch import save_file

from clip import CLIPError
from dassl.utils import UserError
from tests.conftest import TASKS
from tests.reference import plot
from tests.reference import prompts as naive
from tests.trainers._compare import agree, naive_leaf, wide
from trainers.plot import transport_plan

ONE = ("DATASET.SUBSAMPLE_TASKS", "task2")
NAMES = TASKS[2].classnames
SETS, PLACES = 3, 6


def make(build, *options):
    pairs = zip(options[::2], options[1::2], strict=True)
    words = (w for key, value in pairs for w in (f"TRAINER.PLOT.{key}", value))
    return build("PLOT", *ONE, *words)


@pytest.fixture(scope="module")
def with_places(one_task):
    """Features of images whose places differ."""
    generator = torch.Generator().manual_seed(2)
    return {**one_task, "local": torch.randn(5, PLACES, 64, generator=generator)}


def naive_text(naive_model, token_ids, leaf, position="end"):
    """Text features (N, C, e) of contexts (N, m, d), or (N * C, m, d)."""
    rows = leaf.unflatten(0, (SETS, -1)).expand(SETS, 4, *leaf.shape[1:])
    return torch.stack(
        [naive.features(token_ids(NAMES), list(row), position, **naive_model) for row in rows]
    )


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"CSC": True},
        {"CLASS_TOKEN_POSITION": "middle"},
        {"UNIFORM": True},
        {"GLOBAL_TERM": True},
        {"EPS": 0.5, "MAX_ITER": 3, "THRESH": 0.0},
    ],
    ids=str,
)
def test_equations(build, with_places, naive_model, token_ids, close, options):
    words = [word for pair in options.items() for word in pair]
    trainer = make(build, "N", SETS, "N_CTX", 3, *words)
    ctx = trainer.model.prompter.prompts.ctx
    assert ctx.shape == ((12, 3, 64) if "CSC" in options else (3, 3, 64))
    wide(ctx)
    leaf = naive_leaf(ctx)
    position = options.get("CLASS_TOKEN_POSITION", "end")
    text = naive_text(naive_model, token_ids, leaf, position)
    plain = ("CSC", "CLASS_TOKEN_POSITION", "GLOBAL_TERM")
    how = {key.lower(): options[key] for key in options if key not in plain}
    if "GLOBAL_TERM" in options:
        how["whole"] = with_places["feat"].double()
    scale = trainer.clip.logit_scale.double()
    scores = plot.logits(with_places["local"].double(), text, scale, **how)
    loss = naive.loss(scores, with_places["label"].tolist(), [0] * 5, [4])
    agree(trainer, with_places, scores, {"loss": loss}, [leaf], close)


def costs(*shape, seed=0):
    return 2 * torch.rand(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize(
    ("eps", "max_iter", "thresh"), [(0.1, 100, 0.01), (0.1, 1, 0.0), (1.0, 7, 0.1)]
)
def test_plan_of_every_pair_is_its_own(eps, max_iter, thresh, close):
    cost = costs(2, 3, 5, 4)
    found = transport_plan(cost, eps, max_iter, thresh)
    for b in range(2):
        for c in range(3):
            close(found[b, c], plot.sinkhorn(cost[b, c].double(), eps, max_iter, thresh))
            assert torch.equal(found[b, c], transport_plan(cost[b, c], eps, max_iter, thresh))


def test_plan_meets_its_marginals():
    found = transport_plan(costs(2, 3, 5, 4), 0.1, 1000, 0.0)
    torch.testing.assert_close(found.sum(-2), torch.full((2, 3, 4), 1 / 4))
    torch.testing.assert_close(found.sum(-1), torch.full((2, 3, 5), 1 / 5))
    stopped = transport_plan(costs(2, 3, 5, 4), 0.1)
    torch.testing.assert_close(stopped.sum(-2), torch.full((2, 3, 4), 1 / 4))


def test_one_prompt_is_mean_similarity(build, with_places, close):
    transport, uniform = (
        make(build, "N", 1, "UNIFORM", on).forward(with_places).logits for on in (False, True)
    )
    close(transport, uniform.double(), 1e-6)
    plan = transport_plan(costs(5, 1), 0.1)
    torch.testing.assert_close(plan, torch.full((5, 1), 1 / 5))


def test_uniform_places_are_one_place(build, with_places, close):
    """With the same feature everywhere every prompt is matched alike."""
    same = {"local": with_places["local"][:, :1].expand(-1, PLACES, -1)}
    found, mean = (make(build, "N", SETS, "UNIFORM", on) for on in (False, True))
    for trainer in (found, mean):
        wide(trainer.model.prompter.prompts.ctx)
    close(found.forward(same).logits, mean.forward(same).logits.double(), 1e-6)


@pytest.mark.parametrize("eps", [1e-2, 1e-3, 1e-5])
def test_plan_does_not_underflow(eps):
    """exp(-cost / eps) is 0 in fp32, and at eps 0.1 below what half precision resolves."""
    cost = costs(3, 5, 4)
    assert not torch.exp(-cost / eps).all()
    found = transport_plan(cost, eps)
    assert found.isfinite().all()
    torch.testing.assert_close(found.sum(-2), torch.full((3, 4), 1 / 4), rtol=1e-3, atol=1e-3)


def test_the_bias_of_a_tower(build, with_places, monkeypatch):
    """SigLIP's bias is added to the logits, which those of several labels depend on."""
    trainer = make(build)
    features = {name: with_places[key] for name, key in (("global", "feat"), ("local", "local"))}
    logits = trainer.forward(features).logits
    monkeypatch.setattr(trainer.clip, "logit_bias", torch.tensor(-3.0))
    torch.testing.assert_close(trainer.forward(features).logits, logits - 3)


def test_half_precision_features(build, with_places, close):
    trainer = make(build, "N", SETS)
    wide(trainer.model.prompter.prompts.ctx)
    half = with_places["local"].half()
    exact = trainer.forward({"local": half.float()}).logits
    found = trainer.forward({"local": half}).logits
    assert found.dtype == torch.float32
    assert torch.equal(found, exact)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        rounded = trainer.forward({"local": half}).logits
    assert rounded.dtype == torch.float32 and rounded.isfinite().all()


def test_sets_start_apart(build):
    ctx = make(build, "N", SETS).model.prompter.prompts.ctx
    assert len({tuple(row.flatten().tolist()) for row in ctx}) == SETS


def test_dropped_classes(build, with_places, close):
    trainer = make(build, "N", SETS)
    class_mask = torch.tensor([1, 0, 1, 1]).bool()
    whole, kept = (trainer.forward(with_places, part).logits for part in (None, class_mask))
    close(kept[:, class_mask], whole[:, class_mask].double(), 1e-6)


@pytest.fixture(scope="module")
def backbone_file(tmp_path_factory):
    """Weights of a small CLIP whose image tower is a transformer of 4 patches."""
    vision = CLIPVisionCfg(layers=1, width=64, head_width=64, patch_size=16, image_size=32)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = open_clip.CLIP(
            64, vision, CLIPTextCfg(width=64, heads=1, layers=1), quick_gelu=True
        )
    path = tmp_path_factory.mktemp("weights") / "small.safetensors"
    sizes = {"input_resolution": 32, "context_length": 77, "vocab_size": 49408}  # OpenAI's form
    state = {**model.state_dict(), **{name: torch.tensor(n) for name, n in sizes.items()}}
    save_file({name: x.contiguous() for name, x in state.items()}, path)
    return str(path)


def test_runs_on_patches_in_every_mode(run, tmp_path, backbone_file):
    place = ("MODEL.BACKBONE.NAME", backbone_file, "TRAINER.PLOT.N_CTX", 4)
    found = []
    for mode in ("off", "test", "full"):
        store = ("FEATURES.DIR", tmp_path / "features", "FEATURES.MODE", mode)
        found.append(run("PLOT", *place, *store, output=tmp_path / mode))
    assert found[0]["status"] == "complete"
    assert found[0]["trainable"]["parameters"] == 3 * 4 * 4 * 64
    assert found[0]["tasks"] == found[1]["tasks"] == found[2]["tasks"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("N_CTX", 0), r"TRAINER.PLOT.N_CTX .*got"),
        (("N", 0), r"TRAINER.PLOT.N .*got 0"),
        (("MAX_ITER", 0), r"TRAINER.PLOT.MAX_ITER .*got 0"),
        (("EPS", 0.0), r"TRAINER.PLOT.EPS .*got 0.0"),
    ],
)
def test_refused(build, options, message):
    with pytest.raises(UserError, match=message):
        make(build, *options)


def test_a_tower_without_local_features_is_refused(build, monkeypatch):
    monkeypatch.setattr("clip.model.has_local", lambda visual: False)
    with pytest.raises(CLIPError, match=r"tiny/random .* has no 'local' features; it has: global"):
        make(build)
