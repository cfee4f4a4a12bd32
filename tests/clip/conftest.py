"""Small models, and a world without network or the user's caches."""

import huggingface_hub
import open_clip
import pytest
import torch
from open_clip.model import CLIPTextCfg, CLIPVisionCfg, CustomTextCLIP

import clip
from clip import backbones
from tests._method_fixtures import close  # noqa: F401  a fixture

VISION = {"layers": 1, "width": 32, "head_width": 16, "patch_size": 8, "image_size": 16}
TEXT = {"width": 32, "heads": 2, "layers": 2}


def make_small(custom=False, quick=False, **text):
    """A small open_clip model with random weights."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        cls = CustomTextCLIP if custom else open_clip.CLIP
        towers = CLIPVisionCfg(**VISION), CLIPTextCfg(**{**TEXT, **text})
        model = cls(16, *towers, quick_gelu=quick)
    return model.eval().requires_grad_(False)


@pytest.fixture(scope="session")
def small():
    return make_small


@pytest.fixture(scope="session")
def random_pair():
    """A facade with random weights, and open_clip's own model on the same tensors.

    The last two architectures are kept: all of them would take 8 GB.
    """
    made = {}

    def pair(arch):
        if arch not in made:
            if len(made) > 1:
                del made[next(iter(made))]
            facade = backbones.load_uncached(f"{arch}/random")
            model = open_clip.create_model(arch)
            model.load_state_dict(facade.state_dict(), assign=True)
            made[arch] = facade, model.eval()
        return made[arch]

    return pair


@pytest.fixture
def offline(monkeypatch, tmp_path):
    """No network, an empty home; gives the home."""

    def refuse(*args, **kwargs):
        raise OSError("network is unreachable")

    monkeypatch.setattr("socket.create_connection", refuse)
    monkeypatch.setattr(huggingface_hub, "try_to_load_from_cache", lambda *a, **k: None)
    monkeypatch.setenv("HOME", str(tmp_path))
    return tmp_path


@pytest.fixture
def fresh():
    """No backbone is remembered before and after the test."""
    backbones._cached.cache_clear()
    yield
    backbones._cached.cache_clear()


@pytest.fixture(scope="session")
def state():
    """Weights of an untrained model of the tiny shape."""
    return clip.load_backbone("tiny/random").state_dict()


def same_weights(model, state):
    found = model.state_dict()
    return found.keys() == state.keys() and all(torch.equal(found[k], state[k]) for k in state)
