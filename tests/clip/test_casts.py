"""Frozen weights that are converted once for autocast: the same bits, and never an outdated one."""

import copy
import pickle

import pytest
import torch

from clip._casts import CastParameters, scaled
from clip.backbones import load_uncached
from tests.clip._prompts import gradients, random_prompts

LAYER = "visual.transformer.resblocks.1.mlp.c_fc"
LOCAL = frozenset({"global", "local"})


@pytest.fixture(autouse=True)
def no_fast_path(monkeypatch):
    """As on a GPU, where nn.MultiheadAttention has none under autocast."""
    monkeypatch.setattr("torch.backends.mha.get_fastpath_enabled", lambda: False)


@pytest.fixture(scope="module")
def backbones():
    """A tiny ResNet and a tiny ViT as they are, by name."""
    return {name: load_uncached(f"{name}/random") for name in ("tiny", "tiny-vit")}


@pytest.fixture
def vit(backbones):
    """The ViT that converts its weights once, of the test's own."""
    return converted(backbones["tiny-vit"])


def copied(backbone):
    """A copy that shares the largest tensor, which no test changes."""
    shared = backbone.token_embedding.weight
    return copy.deepcopy(backbone, {id(shared): shared})


def converted(backbone):
    other = copied(backbone)
    other.convert_once()
    return other


def autocast(enabled=True):
    return torch.autocast("cpu", dtype=torch.bfloat16, enabled=enabled)


def images():
    return torch.randn(3, 3, 32, 32, generator=torch.Generator().manual_seed(0))


def features(backbone):
    with autocast(), torch.no_grad():
        return torch.cat([x.flatten() for x in backbone.encode_outputs(images(), LOCAL).values()])


def layer_of(backbone):
    return backbone.get_submodule(LAYER)


def conversions(function):
    """How many tensors ``function`` converts to another dtype."""
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profile:
        function()
    return sum(event.name == "aten::_to_copy" for event in profile.events())


@pytest.mark.parametrize("name", ["tiny", "tiny-vit"])
def test_features_and_gradients_are_equal_to_the_last_bit(backbones, name):
    plain, once = backbones[name], converted(backbones[name])
    prompts = random_prompts(1, plain.text_tower.width)
    for _ in range(2):  # the second time with weights that are converted already
        assert torch.equal(features(plain), features(once))
        for tiles in (False, True):
            both = [tower.text_tower.with_chunk(40) for tower in (plain, once)]
            for tower in both:
                tower.tiles = tiles
            with autocast():
                expected, found = (gradients(tower, prompts) for tower in both)
            assert all(torch.equal(a, b) for a, b in zip(expected, found, strict=True))
    assert torch.equal(once.encode_image(images()), plain.encode_image(images()))


def test_gradients_of_image_tokens_are_equal_to_the_last_bit(backbones, vit):
    grads = []
    for backbone in (backbones["tiny-vit"], vit):
        tokens = {i: torch.full((2, 64), 0.1 * i, requires_grad=True) for i in range(3)}
        for recompute in (False, True):
            with autocast():
                out = backbone.encode_prompted_image(images(), tokens, recompute)
            out.float().square().sum().backward()  # adds to the gradient
        grads.append([token.grad for token in tokens.values()])
    assert all(torch.equal(a, b) for a, b in zip(*grads, strict=True))


def test_each_weight_is_converted_once(backbones, vit):
    first = conversions(lambda: features(vit))
    plain, again = (conversions(lambda b=b: features(b)) for b in (backbones["tiny-vit"], vit))
    matrices = 1 + 3 * 8 + 1  # the patches', weight and bias of 4 layers in each block, the last
    assert again + matrices <= first
    assert again + matrices <= plain


def test_what_lists_parameters_gets_the_stored_ones(backbones, vit):
    plain = backbones["tiny-vit"]
    features(vit)
    with autocast():
        assert layer_of(vit).weight.dtype == layer_of(vit).bias.dtype == torch.bfloat16
        assert vit.visual.ln_post.weight.dtype == vit.visual.positional_embedding.dtype
        assert vit.dtype == vit.text_tower.dtype == vit.visual.ln_post.weight.dtype == torch.float32
        state = vit.state_dict()
        assert {p.dtype for p in vit.parameters()} == {torch.float32}
        assert vit.weights_hash == plain.weights_hash
    assert list(state) == list(plain.state_dict())
    assert all(torch.equal(state[name], value) for name, value in plain.state_dict().items())
    assert layer_of(vit).weight is dict(vit.named_parameters())[f"{LAYER}.weight"]


def test_copies_have_no_converted_weights(vit):
    expected = features(vit)
    for other in (copied(vit), pickle.loads(pickle.dumps(vit.visual))):
        held = [m._parameters for m in other.modules() if isinstance(m._parameters, CastParameters)]
        assert held
        assert not any(parameters.casts for parameters in held)
    assert torch.equal(features(copied(vit)), expected)


def test_converted_weights_take_half_as_much_memory(vit):
    for _ in range(2):
        features(vit)
    held = [m._parameters for m in vit.modules() if isinstance(m._parameters, CastParameters)]
    casts = sum(c.value.nbytes for parameters in held for c in parameters.casts.values())
    assert 0 < casts <= sum(p.nbytes for p in vit.visual.parameters()) / 2


def test_a_factor_is_applied_before_the_rounding(vit):
    layer = layer_of(vit)
    with torch.no_grad():
        layer.bias.uniform_(generator=torch.Generator().manual_seed(0))
    product = 1.702 * layer.bias
    assert torch.equal(scaled(layer, "bias", 1.702), product)
    with autocast():
        assert torch.equal(scaled(layer, "bias", 1.702), product.bfloat16())
        assert not torch.equal(product.bfloat16(), (1.702 * layer.bias).bfloat16())


def assigned(layer, state):
    layer.load_state_dict(state, assign=True)


def data_replaced(layer, state):
    layer.weight.data, layer.bias.data = state["weight"], state["bias"]


def written(layer, state):
    with torch.no_grad():
        layer.weight.copy_(state["weight"])
        layer.bias.copy_(state["bias"])


def new_parameters(layer, state):
    layer.weight = torch.nn.Parameter(state["weight"], requires_grad=False)
    layer.bias = torch.nn.Parameter(state["bias"], requires_grad=False)


@pytest.mark.parametrize("change", [assigned, data_replaced, written, new_parameters])
def test_weights_that_change_are_converted_again(backbones, vit, change):
    before = features(vit)
    state = {name: -value.clone() for name, value in layer_of(vit).state_dict().items()}
    change(layer_of(vit), state)
    found = features(vit)
    plain = copied(backbones["tiny-vit"])
    written(layer_of(plain), state)
    assert torch.equal(found, features(plain))
    assert not torch.equal(found, before)


def test_replaced_text_weights_reach_the_blocks_that_run_as_one_node(vit):
    """They look tensors up in the dictionaries of the modules (clip._narrow)."""
    text, prompts = vit.text_tower, random_prompts(1, vit.text_tower.width)
    before = text.encode(prompts)
    block = text.transformer.resblocks[0]
    block.load_state_dict({n: -p.clone() for n, p in block.state_dict().items()}, assign=True)
    found = text.encode(prompts)
    assert not torch.equal(found, before)
    text.narrow = None
    torch.testing.assert_close(found, text.encode(prompts))


def test_weights_that_learn_get_their_gradient(backbones, vit):
    features(vit)
    grads = []
    for backbone in (copied(backbones["tiny-vit"]), vit):
        weight = layer_of(backbone).weight.requires_grad_()
        for _ in range(2):
            with autocast():
                backbone.encode_image(images()).float().square().sum().backward()
            with torch.no_grad():
                weight -= weight.grad
        grads.append(weight.grad)
    assert torch.equal(*grads)


def test_weights_converted_in_inference_mode_serve_training(vit):
    with autocast(), torch.inference_mode():
        vit.encode_image(images())
    tokens = {0: torch.ones(2, 64, requires_grad=True)}
    with autocast():
        vit.encode_prompted_image(images(), tokens).sum().backward()
    assert tokens[0].grad.any()


def test_autocast_is_that_of_the_moment(vit):
    weight = layer_of(vit).weight
    with autocast():
        assert layer_of(vit).weight.dtype == torch.bfloat16
        with autocast(enabled=False):
            assert layer_of(vit).weight is weight
        with torch.autocast("cpu", dtype=torch.float16):
            assert layer_of(vit).weight.dtype == torch.float16
    assert layer_of(vit).weight is weight
