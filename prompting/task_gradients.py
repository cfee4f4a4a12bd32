"""Whether the tasks of a joint training pull the shared tensors the same way: cosines of gradients.

Tasks whose gradients agree help each other (as in MmAP, https://arxiv.org/abs/2312.08636, which
groups tasks by gradients); those that point in opposite directions compete.
"""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F

from clip import without_graphs
from dassl.data.task_samplers import ROUND_ROBIN
from dassl.engine import Step
from dassl.engine.task_weights import TaskWeights
from dassl.utils import UserError, distributed

from .interpret import similarity, task_contexts


class TaskGradients:
    """Cosines between the gradients of the tasks in a batch, every n steps.

    The gradient of a task is that of the loss of its images alone, with respect to the learned
    tensors that all tasks share, before the step. Computing it takes about as long as a step.

    Args:
        every: n.
        shared: these tensors, by name.
    """

    def __init__(self, trainer, every: int, shared: dict[str, torch.Tensor]):
        self.trainer, self.every, self.shared = trainer, every, shared
        self.steps: list[int] = []
        self.cosines: list[list[list[float]]] = []  # (T, T) per step, NaN for absent tasks

    def before_step(self, batch: dict, step: Step) -> None:
        """Record the cosines of this step, if it is due."""
        if step.number % self.every:
            return
        trainer = self.trainer
        cuda = [trainer.device] if trainer.device.type == "cuda" else []
        weights, trainer.task_weights = trainer.task_weights, TaskWeights()  # running means stay
        try:
            with torch.random.fork_rng(devices=cuda), without_graphs():  # those of steps stay
                found = task_gradients_of(trainer, batch, step, list(self.shared.values()))
        finally:
            trainer.task_weights = weights
        tasks = len(trainer.dm.space.tasks)
        ids = torch.tensor(list(found))
        unit = F.normalize(torch.stack(list(found.values())).double().cpu(), dim=1)
        cosine = torch.full((tasks, tasks), math.nan, dtype=torch.float64)
        cosine[ids[:, None], ids] = unit @ unit.T
        self.steps.append(step.number)
        self.cosines.append(cosine.tolist())

    def state(self) -> dict[str, Any]:
        """What was recorded."""
        return {"steps": list(self.steps), "cosines": list(self.cosines)}

    def load_state(self, state: dict[str, Any]) -> None:
        """Continue after what was recorded."""
        self.steps, self.cosines = list(state["steps"]), list(state["cosines"])

    def relations(self) -> dict[str, Any]:
        """For ``task_relations.json``: names, cosines at each step, similarity of the contexts.

        None takes the place of cosines with tasks that a batch lacks.
        """
        contexts = task_contexts(self.trainer)
        return {
            "tasks": list(self.trainer.dm.space.tasknames),
            "tensors": list(self.shared),
            "steps": self.steps,
            "cosines": [
                [[None if math.isnan(v) else round(v, 6) for v in row] for row in matrix]
                for matrix in self.cosines
            ],
            "contexts": None if contexts is None else similarity(contexts).cpu().tolist(),
        }


def task_gradients_of(
    trainer, batch: dict, step: Step, tensors: list[torch.Tensor]
) -> dict[int, torch.Tensor]:
    """The gradient of the loss of each task in a batch, as one vector, by number of the task."""
    space, found = trainer.dm.space, {}
    chosen = trainer.choose_classes(batch, step)
    for t in batch["task"].unique().tolist():
        rows = (batch["task"] == t).nonzero()[:, 0]
        own = {key: _select(value, rows) for key, value in batch.items()}
        mask = chosen if trainer.needs_all_classes else space.of_tasks(own["task"], chosen)
        own = {key: v.to(trainer.device) if torch.is_tensor(v) else v for key, v in own.items()}
        with trainer.autocast():
            output = trainer.forward(trainer.image_features(own), mask)
            loss = sum(trainer.compute_loss(output, own, mask).values())
        scaled = trainer.scaler.scale(loss)  # under amp small gradients would be rounded to 0
        grads = torch.autograd.grad(scaled, tensors, allow_unused=True)
        pairs = zip(grads, tensors, strict=True)
        found[t] = torch.cat(
            [(torch.zeros_like(x) if g is None else g).flatten() for g, x in pairs]
        )
    return found


def _select(values: Any, rows: torch.Tensor) -> Any:
    """The entries of a batch's field for some of its images."""
    return values[rows] if torch.is_tensor(values) else [values[i] for i in rows.tolist()]


def task_gradients(trainer) -> list[TaskGradients]:
    """The observer that ``TRAIN.TASK_GRADIENTS`` asks for, if any; a single task has none.

    Raises:
        UserError: the tasks share no learned tensor, batches have one task each, or several
            processes train.
    """
    every = trainer.cfg.TRAIN.TASK_GRADIENTS
    if not every or len(trainer.dm.space.tasks) < 2 or not trainer.optimizers():
        return []
    if distributed.world_size() > 1:
        raise UserError(
            f"TRAIN.TASK_GRADIENTS {every} works in one process, not in "
            f"{distributed.world_size()}; set it to 0, or train without torchrun"
        )
    if trainer.cfg.DATALOADER.TRAIN_X.SAMPLER == ROUND_ROBIN:
        raise UserError(
            f"TRAIN.TASK_GRADIENTS {every} compares the tasks of a batch, but with "
            f"DATALOADER.TRAIN_X.SAMPLER {ROUND_ROBIN} a batch has one task; choose "
            "another sampler, such as EqualTaskSampler, or set TRAIN.TASK_GRADIENTS to 0"
        )
    bound = trainer.bound_tensors()
    (prompter,) = trainer.models()
    shared = {
        name: tensor
        for name, tensor in prompter.named_parameters()
        if tensor.requires_grad and name not in bound
    }
    if not shared:
        raise UserError(
            f"TRAIN.TASK_GRADIENTS {every} compares gradients of tensors that all tasks share, but "
            f"{trainer.method_name()} learns none; set it to 0"
        )
    return [TaskGradients(trainer, every, shared)]
