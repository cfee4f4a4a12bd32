"""Checkpoints of the released code of MaPLe and PromptSRC: prompts of both towers.

Their files hold a whole CLIP beside the prompts; it is left out. The prompts were used in half
precision.
"""

from __future__ import annotations

import re

import torch

from dassl.utils import UserError

from .upstream import INDEPENDENT, MODULE, MULTI_MODAL, States, tensor_of

BLOCK = r"{tower}_encoder\.transformer\.resblocks\.(\d+)\.VPT_shallow"


def visual_prompts_of(states: States, module: str = MODULE) -> dict[str, torch.Tensor]:
    """State of the image tokens (J, m, V) as "tokens": of VPT, or of a module of another name."""
    first = tensor_of(states, module, "image_encoder.VPT")
    later = _numbered(states[module], BLOCK.format(tower="image"))
    return {"tokens": torch.stack([first, *later.values()])}


def independent_prompts_of(states: States, images: bool = True) -> dict[str, torch.Tensor]:
    """State of the prompts of IVLP and PromptSRC.

    Args:
        images: whether the image tower has prompts.
    """
    ctx = tensor_of(states, INDEPENDENT, "prompt_learner.ctx")
    later = _numbered(states[INDEPENDENT], BLOCK.format(tower="text"))
    tokens = visual_prompts_of(states, INDEPENDENT) if images else {}
    return {**_contexts(ctx, later), **tokens}


def coupled_prompts_of(states: States) -> dict[str, torch.Tensor]:
    """State of the contexts and couplings of MaPLe."""
    ctx = tensor_of(states, MULTI_MODAL, "prompt_learner.ctx")
    state = states[MULTI_MODAL]
    found = _contexts(ctx, _numbered(state, r"prompt_learner\.compound_prompts_text\.(\d+)"))
    for part in ("weight", "bias"):
        found[f"couplings.0.{part}"] = tensor_of(states, MULTI_MODAL, f"prompt_learner.proj.{part}")
        later = rf"prompt_learner\.compound_prompt_projections\.(\d+)\.{part}"
        for i, tensor in _numbered(state, later).items():
            found[f"couplings.{i + 1}.{part}"] = tensor
    return found


def _contexts(ctx: torch.Tensor, later: dict[int, torch.Tensor]) -> dict[str, torch.Tensor]:
    deep = {"contexts.deep": torch.stack(list(later.values()))} if later else {}
    return {"contexts.ctx": ctx, **deep}


def _numbered(state: dict[str, torch.Tensor], pattern: str) -> dict[int, torch.Tensor]:
    """The tensors whose names match, by the number in the name, in ascending order."""
    found = {int(m[1]): x for key, x in state.items() if (m := re.fullmatch(pattern, key))}
    shapes = {tuple(x.shape) for x in found.values()}
    if len(shapes) > 1:
        raise UserError(f"tensors {pattern} of the released checkpoint differ in shape: {shapes}")
    return dict(sorted(found.items()))
