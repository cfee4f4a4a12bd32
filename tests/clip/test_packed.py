"""The packed text tower against open_clip's own full-length pass: values, gradients, memory."""

import dataclasses

import open_clip
import pytest
import torch
from open_clip.model import CLIPTextCfg, CLIPVisionCfg

import clip
from clip import Prompts, TextTower
from prompting.prompt_learner import PromptLearner
from tests.reference import prompts as naive

NAMES = ["cat", "tall_ship", "a", "very long name of some noisy little bird", "dog", "red rose"]
GROUPS = {  # context of each name
    "suite": torch.zeros(6, dtype=torch.long),
    "task": torch.tensor([1, 0, 0, 2, 1, 1]),
    "class": torch.arange(6),
}
VISION = {"layers": 1, "width": 32, "head_width": 16, "patch_size": 8, "image_size": 16}
SHAPES = [("RN50", 2), *((a, 1) for a in ("RN101", "ViT-B-32", "ViT-B-16", "ViT-L-14"))]
DEEP = [pytest.param(arch, 12, marks=pytest.mark.slow) for arch, _ in SHAPES]


def text_model(arch, layers):
    """open_clip's text tower in an architecture's shape, random, beside a small image tower."""
    config = open_clip.get_model_config(arch)
    text = CLIPTextCfg(**{**config["text_cfg"], "layers": layers})
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = open_clip.CLIP(config["embed_dim"], CLIPVisionCfg(**VISION), text, quick_gelu=True)
    return model.eval().requires_grad_(False)


def through_open_clip(model, ctx, names, position):
    """Features of names[i] in context ctx[i], each at the full length in open_clip's tower."""
    tokens = clip.tokenize([f"{name.replace('_', ' ')}." for name in names])
    bare = clip.tokenize([name.replace("_", " ") for name in names])
    weights = model.state_dict()
    built = []
    for row, alone, context in zip(tokens, bare, ctx, strict=True):
        n, end = int(alone.argmax()) - 1, int(row.argmax())
        built.append(naive.prompt(row[1 : 1 + n], row[1 + n : end + 1], context, position, weights))
    x = torch.stack([x for x, _ in built]) + model.positional_embedding
    x = model.ln_final(model.transformer(x, attn_mask=model.attn_mask))
    return x[torch.arange(len(x)), [eot for _, eot in built]] @ model.text_projection


def distance(found, expected):
    return ((found.double() - expected.double()).norm() / expected.double().norm()).item()


def compare(model, prompts_of, n_ctx, whole, limit=1e-5):
    """Features and gradients of the contexts (G, m, d), here in both ways and through open_clip."""
    tower = TextTower(model)
    assert tower.packed and not tower.tiled
    generator = torch.Generator().manual_seed(1)
    ctx = 0.05 * torch.randn(*n_ctx, tower.width, generator=generator)
    theirs = ctx.clone().requires_grad_()
    expected = whole(theirs)
    pull = torch.randn(expected.shape, generator=generator)
    (expected * pull).sum().backward()
    for tower.tiles in (False, True):
        mine = ctx.clone().requires_grad_()
        found = tower.encode(prompts_of(tower, mine))
        assert distance(found, expected) <= limit
        (found * pull).sum().backward()
        assert distance(mine.grad, theirs.grad) <= limit


@pytest.mark.parametrize("position", ["end", "middle", "front"])
@pytest.mark.parametrize("sharing", GROUPS)
def test_contexts_of_suite_task_and_class(sharing, position):
    model, group = text_model("RN50", 2), GROUPS[sharing]

    def prompts_of(tower, ctx):
        return PromptLearner(NAMES, tower, 5, position=position, learn=False)(ctx, group)

    compare(
        model,
        prompts_of,
        (int(group.max()) + 1, 5),
        lambda ctx: through_open_clip(model, ctx[group], NAMES, position),
    )


@pytest.mark.parametrize("position", ["end", "front"])
def test_contexts_of_image_or_prompt_set(position):
    """Every name in each of three contexts; at the end the names' rows are not repeated."""
    model, n = text_model("RN50", 2), len(NAMES)
    group = torch.arange(3).repeat_interleave(n)

    def prompts_of(tower, ctx):
        if position == "front":
            learner = PromptLearner(NAMES * 3, tower, 4, position=position, learn=False)
            return learner(ctx, group)
        alone = PromptLearner(NAMES, tower, 4, learn=False)(ctx, GROUPS["suite"])
        return dataclasses.replace(alone, group=group, suffix_index=torch.arange(n).repeat(3))

    compare(
        model,
        prompts_of,
        (3, 4),
        lambda ctx: through_open_clip(model, ctx[group], NAMES * 3, position),
    )


@pytest.mark.parametrize(("arch", "layers"), SHAPES[1:] + DEEP)
def test_shapes_of_the_published_towers(arch, layers):
    model, group = text_model(arch, layers), GROUPS["task"]

    def prompts_of(tower, ctx):
        return PromptLearner(NAMES, tower, 16, learn=False)(ctx, group)

    compare(
        model, prompts_of, (3, 16), lambda ctx: through_open_clip(model, ctx[group], NAMES, "end")
    )


def random_prompts(seed, width=32):
    """Groups in any order, some of one name or none; names of any length."""
    generator = torch.Generator().manual_seed(seed)

    def number(low, high, *shape):
        return torch.randint(low, high, shape, generator=generator)

    groups, begin, n = int(number(1, 6)), int(number(0, 20)), int(number(1, 30))
    longest = int(number(1, 50))
    rows = number(0, n, n + 7) if seed % 3 == 0 else None
    count = n if rows is None else len(rows)
    shared = torch.randn(groups, begin, width, generator=generator)
    shared[:, :1] = shared[:1, :1]  # SOS
    own = torch.randn(n, longest + 3, width, generator=generator)
    group = number(0, groups, count)
    if seed % 4 == 0:  # no two alike
        shared = shared[group] + torch.randn(count, 1, 1, generator=generator)
        shared[:, :1] = shared[:1, :1]
        group = torch.arange(count).flip(0)
    return Prompts(shared, own, group, number(0, longest, n), rows)


def gradients(tower, prompts):
    """Features, and gradients of the pieces; SOS, which is a constant, has none."""
    leaves = [t.clone().requires_grad_() for t in (prompts.prefix, prompts.suffix)]
    shared = torch.cat([leaves[0][:, :1].detach(), leaves[0][:, 1:]], 1)
    out = tower.encode(dataclasses.replace(prompts, prefix=shared, suffix=leaves[1]))
    pull = torch.randn(out.shape, generator=torch.Generator().manual_seed(2))
    return [out, *torch.autograd.grad((out * pull).sum(), leaves)]


def unlike(found, expected):
    """The largest relative distance; where nothing is expected, nothing may be found."""
    assert all(f.shape == e.shape for f, e in zip(found, expected, strict=True))
    assert not any(f.any() for f, e in zip(found, expected, strict=True) if not e.any())
    pairs = zip(found, expected, strict=True)
    return max(distance(f, e) for f, e in pairs if e.any())


@pytest.mark.parametrize("tiles", [False, True])
@pytest.mark.parametrize("seed", range(24))
def test_any_prompts(small, seed, tiles):
    """The packed inside equals the plain one, which equals open_clip's (test_text.py)."""
    packed, plain = TextTower(small()), TextTower(small())
    packed.tiles = tiles
    plain.packed = False
    prompts = random_prompts(seed)
    assert unlike(gradients(packed, prompts), gradients(plain, prompts)) < 1e-5
    chunked = packed.with_chunk(40)
    assert unlike(gradients(chunked, prompts), gradients(packed, prompts)) < 1e-6
    assert packed.chunk == 0
    with torch.no_grad():
        assert distance(chunked.encode(prompts), packed.encode(prompts)) < 1e-6


@pytest.mark.parametrize(
    ("options", "packed"),
    [
        ({"custom": True}, True),
        ({"ls_init_value": 0.3}, True),
        ({"act_kwargs": {"approximate": "tanh"}}, True),
        ({"custom": True, "no_causal_mask": True}, False),
        ({"custom": True, "pool_type": "last"}, False),
        ({"qk_norm": True}, False),
        ({"scale_attn_inner": True}, False),
    ],
    ids=str,
)
def test_blocks_that_are_not_plain_take_the_plain_path(small, options, packed):
    model = small(**options)
    tower = TextTower(model)
    assert tower.packed == packed
    texts = ["a cat.", "a photo of a very small dog."]
    with torch.no_grad():
        expected = model.encode_text(tower.tokenize(texts))
        assert distance(tower.encode_text(texts), expected) < 1e-5
        assert distance(tower.with_chunk(16).encode_text(texts), expected) < 1e-5


def test_a_replaced_part_takes_the_plain_path(small):
    model = small()
    model.transformer.resblocks[1].mlp.c_fc = torch.nn.Sequential(torch.nn.Linear(32, 128))
    assert not TextTower(model).packed


@pytest.mark.parametrize("tiles", [False, True])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_low_precision_and_autocast(dtype, tiles):
    """As near to the exact features as the plain inside is, with weights rounded or under amp."""
    name = str(dtype).removeprefix("torch.").replace("float", "fp").replace("bfp", "bf")
    exact = clip.load_backbone("tiny/random").text_tower
    rounded = clip.load_backbone("tiny/random", precision=name).text_tower
    prompts = random_prompts(1, exact.width)
    expected = gradients(exact, prompts)
    for tower, amp in ((rounded, False), (exact, True)):
        packed, plain = tower.with_chunk(0), tower.with_chunk(0)
        packed.tiles, plain.packed = tiles, False
        for kind in (packed, plain, packed.with_chunk(40)):
            with torch.autocast("cpu", dtype=dtype, enabled=amp):
                found = gradients(kind, prompts)
            assert unlike(found, expected) < (0.05 if dtype == torch.bfloat16 else 0.01)


def kept_bytes(tower, prompts):
    """Bytes of activations that wait for the backward pass."""
    weights = {p.untyped_storage().data_ptr() for p in tower.parameters()}
    held = {}

    def note(tensor):
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            held[storage.data_ptr()] = tensor, storage.nbytes()
        return tensor

    shared = prompts.prefix.clone().requires_grad_()
    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        tower.encode(dataclasses.replace(prompts, prefix=shared))
    return sum(size for _, size in held.values())


def test_memory(small):
    """What is kept is what row_bytes says, and falls with the chunk."""
    tower = TextTower(small(layers=4))
    own, eot = torch.randn(300, 8, 32), torch.arange(300) % 5 + 2
    prompts = Prompts(torch.randn(6, 17, 32), own, torch.arange(6).repeat_interleave(50), eot)
    rows = 6 * 17 + int((eot + 1).sum())
    assert tower.count_rows(prompts) == rows
    whole = kept_bytes(tower, prompts)
    assert 0.7 < whole / (rows * tower.row_bytes) < 0.9  # 0.98 where views hold whole layers
    for chunk in (512, 128):
        assert kept_bytes(tower.with_chunk(chunk), prompts) < whole / 5
    assert kept_bytes(tower.with_chunk(10_000), prompts) == pytest.approx(whole, rel=0.01)


def test_rows_are_computed_once(small):
    tower = TextTower(small())
    shared, own = torch.randn(3, 17, 32), torch.randn(30, 6, 32)
    prompts = Prompts(shared, own, torch.arange(30) // 10, torch.full((30,), 4))
    assert tower.count_rows(prompts) == 3 * 17 + 30 * 5
    prompts.group = torch.arange(30) // 15  # nobody uses the last beginning
    assert tower.count_rows(prompts) == 2 * 17 + 30 * 5
    prompts.prefix, prompts.group = torch.randn(30, 17, 32), torch.arange(30)
    assert tower.count_rows(prompts) == 1 + 30 * (16 + 5)  # only SOS is shared
    assert TextTower(small(custom=True, no_causal_mask=True)).count_rows(prompts) == 30 * 77
