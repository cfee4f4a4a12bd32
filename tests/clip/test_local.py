"""Local features of the image towers: each place as the tower would pool it."""

import open_clip
import pytest
import torch
from open_clip.model import CLIPTextCfg, CLIPVisionCfg

import clip
from clip import CLIPError
from clip.model import CLIP
from tests.reference.local import attention_pool
from tests.reference.prompts import layer_norm

BOTH = frozenset({"global", "local"})
PREPROCESS = {"mean": (0.5,) * 3, "std": (0.5,) * 3, "interpolation": "bicubic"}


def facade(**vision):
    """A small CLIP with this image tower and random weights."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = open_clip.CLIP(
            16, CLIPVisionCfg(**vision), CLIPTextCfg(width=32, heads=2, layers=1)
        )
    return CLIP(model.eval(), {"embed_dim": 16}, PREPROCESS, "small")


@torch.no_grad()
def test_attention_pool_from_every_place():
    model = facade(layers=(1, 1, 1, 1), width=16, head_width=32, image_size=64)
    images = torch.randn(3, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    found = model.encode_outputs(images, BOTH)
    assert torch.equal(found["global"], model.encode_image(images))
    assert found["local"].shape == (3, 4, 16)
    maps = []
    model.visual.layer4.register_forward_hook(lambda module, x, out: maps.append(out))
    model.encode_image(images)
    weights = {k: v.double() for k, v in model.visual.attnpool.state_dict().items()}
    for i, image in enumerate(maps[0].double()):
        rows = attention_pool(image.flatten(1).T, weights, model.visual.attnpool.num_heads)
        torch.testing.assert_close(found["global"][i].double(), rows[0], rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(found["local"][i].double(), rows[1:], rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_patch_tokens_are_projected_like_the_class_token():
    model = facade(layers=2, width=32, head_width=16, patch_size=8, image_size=16)
    images = torch.randn(3, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    found = model.encode_outputs(images, BOTH)
    torch.testing.assert_close(found["global"], model.encode_image(images))
    assert found["local"].shape == (3, 4, 16)
    tokens = []
    model.visual.transformer.register_forward_hook(lambda module, x, out: tokens.append(out))
    model.encode_image(images)
    weights = {k: v.double() for k, v in model.visual.state_dict().items()}
    rows = layer_norm(tokens[0].double(), weights, "ln_post") @ weights["proj"]
    torch.testing.assert_close(found["global"].double(), rows[:, 0], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(found["local"].double(), rows[:, 1:], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("vision", "message"),
    [
        ({"attentional_pool": True}, r"small \(VisionTransformer\) has no 'local' features"),
        ({}, r"has no 'depth' features; it has: global, local$"),
    ],
)
def test_refused(vision, message):
    model = facade(layers=1, width=32, head_width=16, patch_size=8, image_size=16, **vision)
    outputs = {"global", "local" if vision else "depth"}
    with pytest.raises(CLIPError, match=message):
        model.encode_outputs(torch.zeros(1, 3, 16, 16), frozenset(outputs))


@torch.no_grad()
def test_rounded_towers_give_rounded_features():
    model = clip.load_backbone("tiny/random", precision="bf16")
    exact = clip.load_backbone("tiny/random")
    images = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    found, expected = model.encode_outputs(images, BOTH), exact.encode_outputs(images, BOTH)
    assert found["local"].dtype == torch.bfloat16
    assert found["local"].shape == (2, 1, 64)  # 32 pixels are one place of its last map
    distance = (found["local"].float() - expected["local"]).norm() / expected["local"].norm()
    assert distance < 0.05


@pytest.mark.slow
@pytest.mark.parametrize(("arch", "places"), [("RN50", 49), ("ViT-B-32", 49), ("ViT-B-16", 196)])
@torch.no_grad()
def test_published_towers(random_pair, arch, places):
    model, _ = random_pair(arch)
    images = torch.randn(1, 3, 224, 224, generator=torch.Generator().manual_seed(0))
    found = model.encode_outputs(images, BOTH)
    assert found["local"].shape == (1, places, model.visual.output_dim)
    torch.testing.assert_close(found["global"], model.encode_image(images))
