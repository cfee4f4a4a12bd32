"""Checkpoints as CoOp's and SoftCPT's released code lay them out, made from tensors."""

from pathlib import Path

import numpy as np
import torch
from torch import nn

from clip import load_backbone

MODULE = "prompt_learner"


class Warmup:
    """A schedule around another, whose state holds that other one as an object."""

    def __init__(self, successor):
        self.successor, self.last_epoch = successor, 50

    def state_dict(self):
        return dict(vars(self))


def save(folder, modules: dict[str, dict[str, torch.Tensor]], epoch=50, best=False) -> Path:
    """Write ``folder/<module>/model.pth.tar-<epoch>`` for the state dict of every module."""
    frozen = nn.Linear(8, 8)  # stands for the CLIP that the pickled schedule drags along
    parameters = [nn.Parameter(torch.zeros(2)), *frozen.parameters()]
    optim = torch.optim.SGD(parameters, lr=0.002, momentum=0.9)
    sched = Warmup(torch.optim.lr_scheduler.CosineAnnealingLR(optim, 50))
    for name, state in modules.items():
        content = {
            "state_dict": state,
            "epoch": epoch,
            "optimizer": optim.state_dict(),
            "scheduler": sched.state_dict(),
            "val_result": np.float64(71.5),
        }
        (folder / name).mkdir(parents=True, exist_ok=True)
        file = "model-best.pth.tar" if best else f"model.pth.tar-{epoch}"
        torch.save(content, folder / name / file)
        (folder / name / "checkpoint").write_text(f"{file}\n")
    return Path(folder)


def buffers(names, m, backbone="tiny/random") -> dict[str, torch.Tensor]:
    """The token buffers that a prompt learner stores beside its context of m tokens."""
    text = load_backbone(backbone).text_tower
    filled = [f"{'X ' * m}{name.replace('_', ' ')}." for name in names]
    embedded = text.embed(text.tokenize(filled)).half()  # (n, 77, d)
    return {"token_prefix": embedded[:, :1], "token_suffix": embedded[:, 1 + m :]}


def numbered(parts, prefix="") -> dict[str, torch.Tensor]:
    """The state dict of a list of modules."""
    return {f"{prefix}{i}.{key}": v for i, part in enumerate(parts) for key, v in part.items()}


def coop(names, ctx) -> dict:
    """CoOp's modules, and the hard trainer's with one context or one per class."""
    return {MODULE: {"ctx": ctx, **buffers(names, ctx.shape[-2])}}


def hard_per_task(names_of_tasks, contexts) -> dict:
    """The hard trainer's module with a learner per task."""
    parts = [
        {"ctx": ctx, **buffers(names, len(ctx))}
        for names, ctx in zip(names_of_tasks, contexts, strict=True)
    ]
    return {MODULE: numbered(parts, "learners.")}


def softcpt(names_of_tasks, task_names, u, v, w, m) -> dict:
    """SoftCPT's modules: task context u, class context v (or None), projection w."""
    classes = [name for names in names_of_tasks for name in names]
    modules = {
        MODULE: numbered([buffers(names, m) for names in names_of_tasks]),
        "task_prompt_learner": {"ctx": u, **buffers(task_names, u.shape[-2])},
        "prompt_gen": {"proj": w},
    }
    if v is not None:
        modules["class_prompt_learner"] = {"ctx": v, **buffers(classes, v.shape[-2])}
    return modules
