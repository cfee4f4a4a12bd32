"""Text features of hand-written templates."""

from __future__ import annotations

from dataclasses import replace

import torch
import torch.nn.functional as F

from clip import TextEncoder
from dassl.data import Task, TaskSpace
from image_text import FreeText

from .prompter import Prompter
from .words import cut_texts

# Templates that the released code of CoOp and SoftCPT averages with the dataset's own.
GENERAL = (
    "itap of a {}.",
    "a bad photo of the {}.",
    "a origami {}.",
    "a photo of the large {}.",
    "a {} in a video game.",
    "art of the {}.",
    "a photo of the small {}.",
)


class TemplatePrompter(Prompter):
    """Text features of the class names in hand-written templates; nothing is learned.

    Several templates are averaged class by class, after normalisation or (``normalised`` False)
    as the tower gives them.
    """

    features: torch.Tensor

    def __init__(
        self,
        space: TaskSpace,
        text: TextEncoder,
        extra: tuple[str, ...] = (),
        normalised: bool = True,
    ):
        super().__init__()
        self.space, self.extra = space, extra
        features = F.normalize(average_templates(space, text, extra, normalised), dim=-1)  # (C, e)
        self.register_buffer("features", features, persistent=False)

    def forward(
        self,
        text: TextEncoder,
        image_features: torch.Tensor,
        class_mask: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Text features (C, e)."""
        return self.features

    def show(self) -> list[str]:
        """The sentences of each task, one per line, as they are encoded."""
        lines = []
        for task in self.space.tasks:
            lines.append(f"{task.name}:")
            for template in _templates(task, self.extra):
                lines += [f"  {template.format(name)}" for name in _words(task)]
        return lines

    def distance(self, text_features: torch.Tensor) -> torch.Tensor:
        """The mean over classes of 1 - cosine to normalised text features (C, e)."""
        return (1 - (text_features * self.features).sum(-1)).mean()


def average_templates(
    space: TaskSpace, text: TextEncoder, extra: tuple[str, ...] = (), normalised: bool = True
) -> torch.Tensor:
    """Text features (C, e), fp32, of the class names, averaged over each task's templates.

    Args:
        extra: templates for all tasks, besides their own.
        normalised: whether the features are normalised before they are averaged.
    """
    parts = []
    for task in space.tasks:
        templates, names = _templates(task, extra), _words(task)
        if isinstance(task.classnames, FreeText):
            names = cut_texts(names, text)
        each = [text.encode_text([t.format(n) for n in names]).float() for t in templates]
        if normalised:
            each = [F.normalize(features, dim=-1) for features in each]
        parts.append(torch.stack(each).mean(dim=0))
    return torch.cat(parts)


def _templates(task: Task, extra: tuple[str, ...]) -> list[str]:
    return list(dict.fromkeys((*task.templates, *extra)))


def _words(task: Task) -> list[str]:
    return [name.replace("_", " ") for name in task.classnames]


def with_template(space: TaskSpace, template: str) -> TaskSpace:
    """The same tasks with another template; "" keeps their own.

    Raises:
        UserError: the template does not contain ``{}`` exactly once.
    """
    return with_templates(space, (template,)) if template else space


def with_templates(space: TaskSpace, templates: tuple[str, ...]) -> TaskSpace:
    """The same tasks with other templates."""
    return TaskSpace(tuple(replace(task, templates=templates) for task in space.tasks))
