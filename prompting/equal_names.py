"""Names whose prompts are the same to the tokenizer, which no method can tell from each other."""

from __future__ import annotations

from collections.abc import Callable

from clip import TextEncoder
from dassl.data.tasks import TaskSpace, find_equal
from dassl.utils import UserError


def refuse_equal_classes(space: TaskSpace, text: TextEncoder) -> None:
    """Refuse a task with two classes whose prompts have the same tokens.

    Tokenizers lower-case, repair Unicode and unescape HTML, so that names that differ as text can
    be one prompt. Texts and answers (``space.content``) are left to their own checks.

    Raises:
        UserError: two such classes; both are named.
    """
    if space.content:
        return
    for task in space.tasks:
        equal = find_equal(task.classnames, _tokens(text, task.templates[0]))
        if equal:
            raise UserError(
                f"the classes {equal[0]!r} and {equal[1]!r} of the task {task.name!r} have the "
                "same prompt to this tokenizer, so that no method could tell them apart; rename "
                "or merge them"
            )


def refuse_equal_tasks(space: TaskSpace, text: TextEncoder) -> None:
    """Refuse two tasks whose names have the same tokens, where contexts are made from task names.

    Raises:
        UserError: two such tasks; both names are in it.
    """
    if equal := find_equal(space.tasknames, _tokens(text)):
        raise UserError(
            f"the task names {equal[0]!r} and {equal[1]!r} are the same prompt to this tokenizer, "
            "so that both tasks would get one context; rename one with DATASET.TASK_NAMES"
        )


def _tokens(text: TextEncoder, template: str = "{}") -> Callable[[str], tuple[int, ...]]:
    """The function from a name to the token ids of its prompt."""

    def tokenize(name: str) -> tuple[int, ...]:
        return tuple(text.tokenizer.encode(template.replace("{}", name.replace("_", " "))))

    return tokenize
