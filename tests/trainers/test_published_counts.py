"""Trainable parameters of the compared methods at the widths of the published models."""

from types import SimpleNamespace

import open_clip
import pytest
import torch
from open_clip.model import CLIPTextCfg, CLIPVisionCfg

from clip.adapters import layer_norms
from clip.text import TextTower
from dassl.config import CfgNode
from dassl.data.tasks import Task, TaskSpace
from dassl.engine import TRAINER_REGISTRY

WIDTHS = {"RN50": (512, 1024), "ViT-B/16": (512, 512)}  # d, e
# "#params" of SoftCPT's table of results (RN50), by the number of tasks of a suite
PUBLISHED = {
    "CoOp": {10: 81_920, 6: 49_152, 8: 65_536, 20: 163_840},
    "CoCoOp": {10: 1_009_280, 6: 605_568, 8: 807_424, 20: 2_018_560},
    "ProGrad": {10: 81_920, 6: 49_152, 8: 65_536, 20: 163_840},
    "KgCoOp": {10: 20_480, 6: 12_288, 8: 16_384, 20: 40_960},
    "PLOT": {10: 163_840, 6: 196_608, 8: 262_144, 20: 655_360},
}


@pytest.fixture(scope="module")
def tower():
    """``tower(backbone)``: a text tower of the widths of a backbone, but of two layers."""
    made = {}

    def make(backbone):
        if backbone not in made:
            d, e = WIDTHS[backbone]
            vision = CLIPVisionCfg(layers=1, width=32, head_width=32, patch_size=8, image_size=8)
            with torch.random.fork_rng(devices=[]):
                text = CLIPTextCfg(width=d, heads=8, layers=2)
                made[backbone] = TextTower(open_clip.CLIP(e, vision, text))
        return made[backbone]

    return make


def count(method, tower, **options):
    """Trainable parameters of a method on one task of five classes."""
    cls = TRAINER_REGISTRY.get(method)
    space = TaskSpace((Task("letters", tuple("abcde")),))
    node = CfgNode({**cls.DEFAULTS, **options})
    prompter = cls.build_prompter(SimpleNamespace(), node, space, tower)
    return sum(p.numel() for p in prompter.parameters() if p.requires_grad)


@pytest.mark.parametrize("tasks", [10, 6, 8, 20])
@pytest.mark.parametrize("method", PUBLISHED)
def test_softcpt_table(tower, method, tasks):
    options = {}
    if method == "CoCoOp":
        options = {"CTX_INIT": "a photo of a"}
    if method == "PLOT":
        options = {"N": 2 if tasks == 10 else 4}  # which N made the table, its counts tell
    assert tasks * count(method, tower("RN50"), **options) == PUBLISHED[method][tasks]


@pytest.mark.parametrize(
    ("method", "backbone", "options", "expected"),
    [
        ("CoCoOp", "ViT-B/16", {"CTX_INIT": "a photo of a"}, 35_360),
        ("CoCoOp", "RN50", {"CTX_INIT": "a photo of a"}, 100_928),
        ("KgCoOp", "ViT-B/16", {}, 2_048),
        ("KgCoOp", "ViT-B/16", {"CSC": True}, 5 * 2_048),
        ("ProGrad", "ViT-B/16", {"CTX_INIT": True}, 8_192),
        ("TCP", "ViT-B/16", {"LAYER": 1}, 331_904),
        ("TCP", "ViT-B/16", {"CLASS_AWARE": False}, 2_048),
        ("TaskRes", "ViT-B/16", {}, 5 * 512),
        ("LPPlusPlus", "ViT-B/16", {}, 5 * (512 + 2)),
        ("ProGrad", "ViT-B/16", {"CSC": True}, 5 * 8_192),
        ("PLOT", "RN50", {}, 4 * 8_192),
        ("PLOT", "RN50", {"CSC": True}, 4 * 5 * 8_192),
    ],
)
def test_one_task(tower, method, backbone, options, expected):
    assert count(method, tower(backbone), **options) == expected


def test_layer_norms_of_both_towers():
    """65,536 at ViT-B/16: what the first stage of 2SFS learns."""
    config = open_clip.get_model_config("ViT-B-16")
    with torch.device("meta"):
        model = open_clip.CLIP(
            config["embed_dim"],
            CLIPVisionCfg(**config["vision_cfg"]),
            CLIPTextCfg(**config["text_cfg"]),
        )
    norms = layer_norms(model).values()
    assert sum(p.numel() for norm in norms for p in norm.parameters()) == 65_536
