"""Text features of hand-written templates, which methods start from, keep near to or score by."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

import torch
import torch.nn.functional as F

from clip.text import TextTower
from dassl.data.tasks import TaskSpace


@torch.no_grad()
def template_features(space: TaskSpace, text: TextTower, extra: Iterable[str] = ()) -> torch.Tensor:
    """Normalised text features (C, e), fp32, of the class names in their tasks' templates.

    Several templates are averaged after normalisation, class by class.

    Args:
        extra: templates to take beside the tasks' own.
    """
    parts = []
    for task in space.tasks:
        names = [name.replace("_", " ") for name in task.classnames]
        parts.append(
            sum(
                F.normalize(text.encode_text([t.format(n) for n in names]).float(), dim=-1)
                for t in dict.fromkeys((*task.templates, *extra))
            )
        )
    return F.normalize(torch.cat(parts), dim=-1)


def with_template(space: TaskSpace, template: str) -> TaskSpace:
    """The same tasks with another template; "" leaves them theirs.

    Raises:
        UserError: the template does not hold ``{}`` once.
    """
    if not template:
        return space
    return TaskSpace(tuple(replace(task, templates=(template,)) for task in space.tasks))
