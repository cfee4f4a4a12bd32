"""Text features of hand-written templates."""

from __future__ import annotations

from dataclasses import replace

import torch
import torch.nn.functional as F

from dassl.data import TaskSpace
from image_text import FreeText

from .prompter import Prompter
from .words import cut_texts


class TemplatePrompter(Prompter):
    """Text features of the class names in hand-written templates; nothing is learned.

    Several templates are averaged after normalisation, class by class.
    """

    def __init__(self, space, text, extra=()):
        super().__init__()
        parts = []
        for task in space.tasks:
            templates = dict.fromkeys((*task.templates, *extra))
            names = [name.replace("_", " ") for name in task.classnames]
            if isinstance(task.classnames, FreeText):
                names = cut_texts(names, text)
            parts.append(
                sum(
                    F.normalize(text.encode_text([t.format(n) for n in names]).float(), dim=-1)
                    for t in templates
                )
            )
        features = F.normalize(torch.cat(parts), dim=-1)  # (C, e)
        self.register_buffer("features", features, persistent=False)

    def forward(self, text, image_features, class_mask=None):
        """Text features (C, e)."""
        return self.features


def with_template(space: TaskSpace, template: str) -> TaskSpace:
    """The same tasks with another template; "" leaves them theirs.

    Raises:
        UserError: the template does not hold ``{}`` once.
    """
    if not template:
        return space
    return TaskSpace(tuple(replace(task, templates=(template,)) for task in space.tasks))
