"""Text passes replayed as graphs: the same numbers, and no graph where it would be wrong."""

import dataclasses

import pytest
import torch
from torch.utils.checkpoint import checkpoint

from clip import Prompts, TextTower, _graphs, without_graphs


@pytest.fixture
def tower(small, emulated_graphs):
    """A tower with graphs, real ones on a GPU."""
    tower = TextTower(small().to("cuda" if torch.cuda.is_available() else "cpu"))
    tower.tiles, tower.graphs = True, _graphs.TextGraphs()
    yield tower
    tower.to("cpu")


def prompts_of(tower, groups=2, seed=0):
    """Six prompts in two contexts that learn, on the tower's device."""
    generator = torch.Generator().manual_seed(seed)
    prefix = torch.randn(groups, 5, tower.width, generator=generator).to(tower.device)
    suffix = torch.randn(6, 7, tower.width, generator=generator).to(tower.device)
    group, eot = torch.arange(6) % groups, torch.tensor([2, 4, 6, 3, 3, 1])
    return Prompts(prefix.requires_grad_(), suffix, group, eot)


def plain(tower):
    """The same tower without graphs."""
    other = tower.with_chunk(0)
    other.graphs = None
    return other


def learn(tower, prompts, steps=10):
    """Features of every step, and what is learned by gradient descent with momentum."""
    optimizer = torch.optim.SGD([prompts.prefix], lr=0.1, momentum=0.9)
    features = []
    for step in range(steps):
        optimizer.zero_grad()
        found = tower.encode(prompts)
        features.append(found.detach())
        (found.softmax(1)[:, step % 4].log().sum()).backward()
        optimizer.step()
    return torch.stack(features), prompts.prefix.detach()


def test_ten_steps_equal_those_without_graphs(tower):
    found, learned = learn(tower, prompts_of(tower))
    assert len(tower.graphs.graphs) == 1
    (graph,) = tower.graphs.graphs.values()
    assert graph.replays == 10 - _graphs.AFTER + 1
    expected, wanted = learn(plain(tower), prompts_of(tower))
    assert torch.allclose(found, expected, rtol=1e-4, atol=1e-5)
    assert torch.allclose(learned, wanted, rtol=1e-4, atol=1e-5)


def test_features_outlive_the_next_replay(tower):
    prompts = prompts_of(tower)
    learn(tower, prompts, 4)
    first = tower.encode(prompts)
    before = first.detach().clone()
    grad = torch.autograd.grad(first.sum(), prompts.prefix, retain_graph=True)[0]
    again = torch.autograd.grad(first.sum(), prompts.prefix)[0]
    assert torch.equal(grad, again)
    with torch.no_grad():
        prompts.prefix.add_(1)
    second = tower.encode(prompts)
    assert torch.equal(first, before) and not torch.equal(second, first)


def test_prompts_encoded_twice_in_a_step(tower):
    """The second pass is computed without the graph, whose activations the first still needs."""
    prompts, other = prompts_of(tower), prompts_of(tower, seed=1)
    learn(tower, prompts, 4)
    (graph,) = tower.graphs.graphs.values()
    replays = graph.replays
    inputs = prompts.prefix, other.prefix
    both = tower.encode(prompts).square().sum() + tower.encode(other).square().sum()
    assert graph.replays == replays + 1
    found = torch.autograd.grad(both, inputs)
    without = plain(tower)
    both = without.encode(prompts).square().sum() + without.encode(other).square().sum()
    for grad, expected in zip(found, torch.autograd.grad(both, inputs), strict=True):
        assert torch.allclose(grad, expected, rtol=1e-4, atol=1e-5)


def test_a_backward_pass_that_comes_too_late_is_refused(tower):
    prompts = prompts_of(tower)
    learn(tower, prompts, 4)
    first = tower.encode(prompts).sum()
    first.backward(retain_graph=True)
    tower.encode(prompts).sum().backward()
    with pytest.raises(RuntimeError, match=r"COMPUTE\.GRAPHS False"):
        first.backward()


def test_what_is_never_captured(tower):
    prompts = prompts_of(tower)
    with torch.no_grad():
        for _ in range(5):
            tower.encode(prompts)
    learn(tower.with_chunk(8), prompts, 5)
    for groups in (1, 2, 3, 4, 5, 6):  # another structure each time
        learn(tower, prompts_of(tower, groups), 2)
    assert not tower.graphs.graphs


def test_what_checkpointing_computes_twice_runs_without_graphs(tower):
    def encode(prefix):
        with without_graphs():
            return tower.encode(dataclasses.replace(prompts, prefix=prefix))

    prompts, grads = prompts_of(tower), []
    for _ in range(_graphs.AFTER + 2):
        features = checkpoint(encode, prompts.prefix, use_reentrant=False)
        grads += torch.autograd.grad(features.softmax(1)[:, 0].sum(), [prompts.prefix])
    assert not tower.graphs.graphs
    wanted = plain(tower).encode(prompts).softmax(1)[:, 0].sum()
    (expected,) = torch.autograd.grad(wanted, [prompts.prefix])
    assert all(torch.allclose(grad, expected, rtol=1e-4, atol=1e-6) for grad in grads)


def test_few_graphs_are_held(tower):
    for groups in range(1, 7):
        learn(tower, prompts_of(tower, groups), 4)
    held = [key[0].prefixes for key in tower.graphs.graphs]
    assert held == [3, 4, 5, 6] and len(held) == _graphs.LIMIT


def test_a_capture_that_fails_is_told_once(tower, monkeypatch, capsys):
    def fail(*_):
        raise RuntimeError("operation not permitted when stream is capturing\nmore")

    monkeypatch.setattr(_graphs.TextGraphs, "make", fail)
    found, _ = learn(tower, prompts_of(tower))
    assert not tower.graphed
    said = capsys.readouterr().out
    assert said.count("without CUDA graphs") == 1 and "not permitted" in said
    expected, _ = learn(plain(tower), prompts_of(tower))
    assert torch.allclose(found, expected, rtol=1e-4, atol=1e-5)
