"""Refusal of names whose prompts have the same tokens, which no method can distinguish."""

from __future__ import annotations

from collections.abc import Callable

from clip import TextEncoder
from dassl.data.names import find_equal
from dassl.data.tasks import TaskSpace
from dassl.utils import UserError


def refuse_equal_classes(space: TaskSpace, text: TextEncoder) -> None:
    """Refuse a task with two classes whose prompts have the same tokens.

    Tokenizers lower-case, repair Unicode and unescape HTML, so different names can have the same
    tokens. Captions and answers (``space.content``) have their own checks.

    Raises:
        UserError: the message contains both names.
    """
    if space.content:
        return
    for task in space.tasks:
        equal = find_equal(task.classnames, _tokens(text, task.templates[0]))
        if equal:
            raise UserError(
                f"the classes {equal[0]!r} and {equal[1]!r} of the task {task.name!r} have the "
                "same tokens in a prompt, so no method could distinguish them; rename or merge them"
            )


def refuse_equal_tasks(space: TaskSpace, text: TextEncoder) -> None:
    """Refuse two tasks whose names have the same tokens, for contexts generated from task names.

    Raises:
        UserError: the message contains both names.
    """
    if equal := find_equal(space.prompt_names, _tokens(text)):
        raise UserError(
            f"the task names {equal[0]!r} and {equal[1]!r} have the same tokens in a prompt, so "
            "both tasks would get the same context; rename one with DATASET.TASK_NAMES"
        )


def _tokens(text: TextEncoder, template: str = "{}") -> Callable[[str], tuple[int, ...]]:
    """The function from a name to the token ids of its prompt."""

    def tokenize(name: str) -> tuple[int, ...]:
        return tuple(text.tokenizer.encode(template.replace("{}", name.replace("_", " "))))

    return tokenize
