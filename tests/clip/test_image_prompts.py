"""Prompt tokens in the image tower against equations, and where they change nothing."""

import open_clip
import pytest
import torch
from open_clip.model import CLIPTextCfg, CLIPVisionCfg
from open_clip.timm_model import TimmModel

import clip
from clip._image_prompts import encode_with_tokens, token_width
from tests.reference import images as naive

M, V, LAYERS = 3, 64, 3


@pytest.fixture(scope="module")
def vit():
    return clip.load_backbone("tiny-vit/random")


@pytest.fixture(scope="module")
def pixels():
    return torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))


def make_tokens(depth, *images):
    generator = torch.Generator().manual_seed(1)
    return {i: torch.randn(*images, M, V, generator=generator) for i in range(depth)}


@pytest.mark.parametrize("depth", [1, LAYERS])
@pytest.mark.parametrize("each", [False, True])
def test_values_and_gradients(vit, pixels, close, depth, each):
    tokens = make_tokens(depth, 2) if each else make_tokens(depth)
    leaves = {i: x.double().requires_grad_() for i, x in tokens.items()}
    weights = {key: value.double() for key, value in vit.state_dict().items()}
    rows = []
    for b, image in enumerate(pixels.double()):
        prompts = [x[b] if each else x for x in leaves.values()]
        rows.append(naive.encode(image, weights, V // 32, tokens=prompts))
    wanted = torch.stack(rows)
    pull = torch.randn(wanted.shape, generator=torch.Generator().manual_seed(2))
    expected = torch.autograd.grad((wanted * pull).sum(), list(leaves.values()))
    for recompute in (False, True):
        own = {i: x.clone().requires_grad_() for i, x in tokens.items()}
        found = vit.encode_prompted_image(pixels, own, recompute)
        close(found, wanted.detach())
        for grad, theirs in zip(
            torch.autograd.grad((found * pull).sum(), list(own.values())), expected, strict=True
        ):
            close(grad, theirs)


def test_recomputing_stores_less(vit, pixels):
    kept = []
    for recompute in (False, True):
        tokens = {i: x.requires_grad_() for i, x in make_tokens(LAYERS).items()}
        sizes: list[int] = []

        def note(x, sizes=sizes):
            sizes.append(x.nbytes)
            return x

        with torch.autograd.graph.saved_tensors_hooks(note, lambda x: x):
            vit.encode_prompted_image(pixels, tokens, recompute)
        kept.append(sum(sizes))
    assert kept[1] < kept[0] / 3


def test_no_tokens_is_clip(vit, pixels):
    assert torch.equal(vit.encode_prompted_image(pixels, {}), vit.encode_image(pixels))


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"pool_type": "avg", "final_ln_after_pool": True},
        {"no_ln_pre": True},
        {"ls_init_value": 0.3},
    ],
    ids=str,
)
def test_the_tower_itself_without_any_token(options, pixels):
    """Zero tokens in front of each block: the whole path equals open_clip's forward pass."""
    vision = CLIPVisionCfg(layers=2, width=V, head_width=32, patch_size=8, image_size=32, **options)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        visual = open_clip.CLIP(16, vision, CLIPTextCfg(width=32, heads=2, layers=1)).visual
    visual = visual.eval().requires_grad_(False)
    empty = {i: torch.zeros(0, V) for i in range(2)}
    torch.testing.assert_close(
        encode_with_tokens(visual, pixels, empty), visual(pixels), rtol=1e-4, atol=1e-5
    )


def test_timm_vit(pixels):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        visual = TimmModel("vit_tiny_patch16_224", 16, image_size=32, pool="token")
    visual = visual.eval().requires_grad_(False)
    images = torch.nn.functional.interpolate(pixels, (224, 224))
    width = token_width(visual)
    empty = {i: torch.zeros(0, width) for i in range(2)}
    torch.testing.assert_close(
        encode_with_tokens(visual, images, empty), visual(images), rtol=1e-4, atol=1e-5
    )
    tokens = {i: torch.randn(2, width).requires_grad_() for i in range(2)}
    found = encode_with_tokens(visual, images, tokens)
    assert not torch.allclose(found, visual(images), rtol=1e-3)
    grads = torch.autograd.grad(found.sum(), list(tokens.values()))
    assert all(grad.abs().max() > 0 for grad in grads)


def test_refused(vit, pixels):
    with pytest.raises(clip.CLIPError, match=r"before block 3.*blocks 0 to 2"):
        vit.encode_prompted_image(pixels, make_tokens(4))
    resnet = clip.load_backbone("tiny/random")
    with pytest.raises(clip.CLIPError, match=r"ModifiedResNet.*cannot take prompt tokens.*ViT-B"):
        resnet.image_width  # noqa: B018
