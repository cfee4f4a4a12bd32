"""Trainable parameters of the methods with deep prompts at the size of ViT-B/16."""

from types import SimpleNamespace

import pytest
import torch
from torch import nn

from clip import _archs
from clip._blocks import causal_mask
from clip.model import CLIP
from dassl.config import CfgNode
from dassl.data.tasks import Task, TaskSpace
from dassl.engine import TRAINER_REGISTRY


@pytest.fixture(scope="module")
def vit_b16():
    """ViT-B/16 on the meta device, but for what prompts are embedded with."""
    config = _archs.arch_config("ViT-B-16")
    with torch.device("meta"):
        model = _archs.build(config)
    model.attn_mask = causal_mask(77, torch.device("cpu"), torch.float32)
    model.token_embedding = nn.Embedding(49408, 512, _weight=torch.zeros(49408, 512))
    model.positional_embedding = nn.Parameter(torch.zeros(77, 512))
    found = CLIP(model, config, _archs.CLIP_PREPROCESS, "ViT-B/16")
    # nothing is encoded here, only the number of features counts
    found.text_tower.encode_text = lambda texts: torch.zeros(len(texts), 512)
    return found


@pytest.mark.parametrize(
    ("method", "options", "expected"),
    [
        ("VPT", {}, 73_728),
        ("IVLP", {}, 30_720),
        ("IVLP", {"PROMPT_DEPTH_VISION": 0, "N_CTX_TEXT": 4}, 24_576),
        ("MaPLe", {}, 3_555_072),
        ("PromptSRC", {}, 46_080),
    ],
)
def test_as_published(vit_b16, method, options, expected):
    cls = TRAINER_REGISTRY.get(method)
    space = TaskSpace((Task("letters", tuple("abcde")),))
    node = CfgNode({**cls.DEFAULTS, **options})
    trainer = SimpleNamespace(clip=vit_b16)
    prompter = cls.build_prompter(trainer, node, space, vit_b16.text_tower)
    assert sum(p.numel() for p in prompter.parameters()) == expected
