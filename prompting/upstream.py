"""Checkpoints of released code, of CoOp, SoftCPT and later methods: one folder per module."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import nn

from clip import TextEncoder
from dassl.engine.checkpoints import checkpoint_file, load_strictly
from dassl.utils import UserError
from dassl.utils.inert_pickle import load_inert

from .prompt_learner import PromptLearner

MODULE = "prompt_learner"  # registered by CoOp's and SoftCPT's trainers, and by ours
MULTI_MODAL, INDEPENDENT = "MultiModalPromptLearner", "VLPromptLearner"  # MaPLe's; PromptSRC's
PREFIX, SUFFIX = "token_prefix", "token_suffix"  # embeddings of SOS; of names, "." and EOT
CLOSE = 0.02  # relative distance of embeddings that were rounded to fp16
States = dict[str, dict[str, torch.Tensor]]


def read_released(directory: str | Path, epoch: int | None, text: TextEncoder) -> States | None:
    """The state dicts in a checkpoint of the released code, by module.

    Returns:
        None if there is no such checkpoint.

    Raises:
        UserError: it belongs to another backbone, or is damaged.
    """
    modules = [Path(directory or "") / name for name in (MODULE, MULTI_MODAL, INDEPENDENT)]
    if not directory or not any(is_released(checkpoint_file(m, epoch)) for m in modules):
        return None
    folders = sorted(path for path in Path(directory).iterdir() if path.is_dir())
    files = {folder.name: checkpoint_file(folder, epoch) for folder in folders}
    files = {name: path for name, path in files.items() if path.is_file()}
    print(f"Loading the modules {', '.join(files)} of released code in {directory}")
    states = {name: load_inert(path)["state_dict"] for name, path in files.items()}
    _check_backbone(states, text, directory)
    return states


def load_learned(
    prompter: nn.Module, learned: dict[str, torch.Tensor], directory: str | Path
) -> None:
    """Load learned tensors of the released code into a prompter, in fp32.

    Raises:
        UserError: they belong to another method, context or set of classes.
    """
    # the released code stores an empty buffer where there is no context
    state = {key: value.float() for key, value in learned.items() if value.numel()}
    load_strictly(prompter, state, directory)


def is_released(path: Path) -> bool:
    """Whether a file is a checkpoint of the released code.

    Only those contain an optimizer's state or embeddings of names.
    """
    if not path.is_file():
        return False
    try:
        content = load_inert(path)
    except UserError:
        return False  # the next reader reports what is wrong
    return "optimizer" in content or any(_is_named(key, SUFFIX) for key in content["state_dict"])


def context_of(states: States, module: str, classes: PromptLearner | None = None) -> torch.Tensor:
    """The context (m, d) or (G, m, d) of a module of the released code.

    Raises:
        UserError: no such module, or a context per class for other names than ``classes``.
    """
    state = states.get(module, {})
    contexts = _numbered(state, "ctx")
    if not contexts:
        raise UserError(
            f"the released checkpoint has no context in {module}; its modules are "
            f"{', '.join(states)}: is it of another method?"
        )
    ctx = contexts[0] if "ctx" in state else torch.stack(contexts)
    per_class = ctx.dim() == 3 and len(ctx) == sum(map(len, _numbered(state, SUFFIX)))
    if classes is not None and per_class and not same_names(state, classes):
        raise UserError(
            f"the released checkpoint has a context for each of its {len(ctx)} classes, which "
            f"differ from the {len(classes.names)} classes here; only a shared context applies to "
            "other classes"
        )
    return ctx


def same_names(state: dict[str, torch.Tensor], learner: PromptLearner) -> bool:
    """Whether a released module has the names of the learner; True if it stores no names."""
    suffixes = _numbered(state, SUFFIX)
    if not suffixes:
        return True
    ours = learner.embedded()  # (n, L, d) embeddings of name, full stop, EOT, padding
    theirs = torch.cat(suffixes)[:, : ours.shape[1]]
    return theirs.shape == ours.shape and _close(theirs, ours)


def tensor_of(states: States, module: str, key: str) -> torch.Tensor:
    """A tensor of a module of the released code.

    Raises:
        UserError: there is none; the message contains module and key.
    """
    if key not in states.get(module, {}):
        raise UserError(
            f"the released checkpoint has no {module} with a tensor {key}; its modules are "
            f"{', '.join(states)}: is it of another method?"
        )
    return states[module][key]


def _check_backbone(states: States, text: TextEncoder, directory: str | Path) -> None:
    """Refuse contexts of another text tower, by the start token stored with them."""
    start = torch.tensor(text.tokenizer.prefix_ids[:1], dtype=torch.long, device=text.device)
    own = text.embed(start).flatten().cpu()  # (d,); (0,) of a tower without a start token
    for state in states.values():
        for theirs in _numbered(state, PREFIX):
            if theirs.shape[-1] != len(own) or not _close(theirs[0, 0], own):
                raise UserError(
                    f"the released checkpoint in {directory} belongs to another backbone: its "
                    "start token has another embedding; choose the backbone it was trained with "
                    "(--backbone)"
                )


def _close(a: torch.Tensor, b: torch.Tensor) -> bool:
    a, b = a.float(), b.float().cpu()
    return bool((a - b).norm() <= CLOSE * b.norm())


def _is_named(key: str, name: str) -> bool:
    return key.rpartition(".")[2] == name


def _numbered(state: dict[str, torch.Tensor], name: str) -> list[torch.Tensor]:
    """The tensors ``name``, ``0.name``, ``learners.1.name``, ... sorted by their numbers."""
    keys = [key for key in state if _is_named(key, name)]
    numbers = {key: [int(part) for part in key.split(".") if part.isdigit()] for key in keys}
    return [state[key] for key in sorted(keys, key=numbers.__getitem__)]
