"""Contexts of later text blocks: every way of encoding them against a naive full-length pass."""

import dataclasses

import pytest
import torch

from clip import CLIPError, Prompts, TextTower, _graphs
from tests.reference import prompts as naive

GROUPS = {  # context of each of six prompts
    "suite": torch.zeros(6, dtype=torch.long),
    "task": torch.tensor([3, 0, 0, 2, 3, 3]),  # no prompt is in context 1
    "class": torch.tensor([1, 0, 2, 5, 4, 3]),
    "image": torch.arange(3).repeat_interleave(2),  # the same two names in each context
}
WAYS = ("plain", "packed", "tiles", "packed in chunks", "tiles in chunks", "graphs")
LAYERS, M = 3, 4  # M tokens overwritten of the five of a context


def make_prompts(sharing, d):
    """Prompts with deep contexts before blocks 1 and 2, from fixed random numbers."""
    generator = torch.Generator().manual_seed(0)

    def number(*shape):
        return 0.3 * torch.randn(shape, generator=generator)

    group = GROUPS[sharing]
    count = int(group.max()) + 1
    eot = torch.tensor([2, 4, 6, 3, 3, 1])
    prefix = number(count, 6, d)
    prefix[:, :1] = prefix[:1, :1]
    deep = {i: number(count, M, d) for i in range(1, LAYERS)}
    prompts = Prompts(prefix, number(6, 8, d), group, eot, deep=deep)
    if sharing == "image":
        suffix_index = torch.tensor([2, 4]).repeat(3)
        return dataclasses.replace(prompts, suffix_index=suffix_index)
    return prompts


def tower_of(model, way):
    tower = TextTower(model)
    tower.packed = way != "plain"
    tower.tiles = "packed" not in way
    if way == "graphs":
        tower.graphs = _graphs.TextGraphs()
    return tower.with_chunk(24) if "chunks" in way else tower


def pieces(prompts):
    """The learned pieces as leaves, and the prompts made of them; SOS is a constant."""
    context, suffix, *deep = (
        x.detach().clone().requires_grad_()
        for x in (prompts.prefix[:, 1:], prompts.suffix, *prompts.deep.values())
    )
    prefix = torch.cat([prompts.prefix[:, :1].to(context.dtype), context], 1)
    layers = dict(zip(prompts.deep, deep, strict=True))
    made = dataclasses.replace(prompts, prefix=prefix, suffix=suffix, deep=layers)
    return [context, suffix, *deep], made


def naive_features(prompts, weights, quick, length=77):
    """Each prompt on its own, at the full length, in double precision."""
    rows = prompts.suffix_index
    rows = range(len(prompts.group)) if rows is None else rows.tolist()
    features = []
    for g, r in zip(prompts.group.tolist(), rows, strict=True):
        end = prompts.prefix.shape[1] + int(prompts.eot[r])
        x = torch.cat([prompts.prefix[g], prompts.suffix[r, : prompts.eot[r] + 1]])
        x = torch.cat([x, x.new_zeros(length - len(x), x.shape[1])])
        deep = [ctx[g] for ctx in prompts.deep.values()]
        features.append(naive.encode(x, end, weights, heads=2, quick=quick, deep=deep))
    return torch.stack(features)


@pytest.mark.parametrize("quick", [True, False])
@pytest.mark.parametrize("sharing", GROUPS)
def test_values_and_gradients(small, emulated_graphs, close, sharing, quick):
    model = small(layers=LAYERS, quick=quick)
    assert bool(TextTower(model).narrow.current()) == quick
    prompts = make_prompts(sharing, 32)
    doubled = {i: ctx.double() for i, ctx in prompts.deep.items()}
    doubled = dataclasses.replace(
        prompts, prefix=prompts.prefix.double(), suffix=prompts.suffix.double(), deep=doubled
    )
    leaves, made = pieces(doubled)
    weights = {key: value.double() for key, value in model.state_dict().items()}
    wanted = naive_features(made, weights, quick)
    pull = torch.randn(wanted.shape, generator=torch.Generator().manual_seed(2))
    grads = torch.autograd.grad((wanted * pull).sum(), leaves)
    for way in WAYS:
        tower = tower_of(model, way)
        for _ in range(_graphs.AFTER + 1 if way == "graphs" else 1):
            own, made = pieces(prompts)
            found = tower.encode(made)
            close(found, wanted.detach())
            mine = torch.autograd.grad((found * pull).sum(), own)
        for grad, expected in zip(mine, grads, strict=True):
            close(grad, expected)
        assert way != "graphs" or len(tower.graphs.graphs) == 1


@pytest.mark.parametrize("heads", [1, 4])
@pytest.mark.parametrize("sharing", GROUPS)
def test_blocks_on_a_cpu_compute_what_autograd_does(small, sharing, heads):
    """Those of clip._narrow (a first, a middle and a last one) give the same bits."""
    tower, found = tower_of(small(layers=LAYERS, quick=True, heads=heads), "tiles"), []
    assert len(tower.narrow.current()) == LAYERS
    for narrow in (tower.narrow, None):
        tower.narrow = narrow
        leaves, made = pieces(make_prompts(sharing, 32))
        features = tower.encode(made)
        found.append([features, *torch.autograd.grad(features.square().sum(), leaves)])
    assert len(found[0]) == 2 + LAYERS  # features, contexts, suffixes, and two deep contexts
    for mine, expected in zip(*found, strict=True):
        assert torch.equal(mine, expected)


def replace_by_loading(tower):
    state = {key: 1.5 * value for key, value in tower.state_dict().items()}
    tower.load_state_dict(state, assign=True)


def replace_a_module(tower):
    tower.transformer.resblocks[1].mlp.c_fc = torch.nn.Linear(32, 128).requires_grad_(False)


@pytest.mark.parametrize("replace", [replace_by_loading, replace_a_module])
def test_weights_that_are_replaced_are_used(small, replace):
    tower = tower_of(small(layers=LAYERS, quick=True), "tiles")
    before = tower.encode(make_prompts("task", 32))
    replace(tower)
    after = tower.encode(make_prompts("task", 32))
    tower.narrow = None
    assert torch.equal(after, tower.encode(make_prompts("task", 32)))
    assert not torch.allclose(after, before, rtol=1e-2)


def test_weights_that_move_elsewhere_are_gathered_there(small):
    tower = TextTower(small(layers=LAYERS, quick=True)).to("meta")
    assert all(weights.w_in.is_meta for weights in tower.narrow.current())


def test_a_bidirectional_tower_takes_them_too(small):
    """Overwriting with what was there changes nothing."""
    tower = TextTower(small(custom=True, no_causal_mask=True, layers=2))
    prompts = make_prompts("suite", 32)
    seen = []
    hook = tower.transformer.resblocks[1].register_forward_pre_hook(
        lambda _, args: seen.append(args[0])
    )
    expected = tower.encode(dataclasses.replace(prompts, deep={}))
    hook.remove()
    same = seen[0][:1, 1 : 1 + M]  # of the first prompt; states differ between prompts
    first = dataclasses.replace(
        prompts, group=prompts.group[:1], suffix=prompts.suffix[:1], eot=prompts.eot[:1]
    )
    found = tower.encode(dataclasses.replace(first, deep={1: same}))
    assert torch.allclose(found, expected[:1], rtol=1e-4, atol=1e-6)
    changed = tower.encode(dataclasses.replace(first, deep={1: -same}))
    assert not torch.allclose(changed, expected[:1], rtol=1e-2)


@pytest.mark.parametrize(
    ("deep", "message"),
    [
        ({3: (4, 5)}, "before block 3.*blocks 0 to 2"),
        ({0: (4, 5)}, "before block 0"),
        ({1: (4, 6)}, r"shape \(4, 6\).*4 prefixes with 5 tokens"),
        ({1: (3, 5)}, r"shape \(3, 5\).*4 prefixes with 5 tokens"),
    ],
)
def test_refused(small, deep, message):
    tower = TextTower(small(layers=LAYERS))
    contexts = {i: torch.zeros(*shape, 32) for i, shape in deep.items()}
    with pytest.raises(CLIPError, match=message):
        tower.encode(dataclasses.replace(make_prompts("task", 32), deep=contexts))
