"""The words of a chain's steps: what every step says of every class."""

from __future__ import annotations

from clip.text import TextTower, tokenize
from dassl.data.tasks import TaskSpace
from dassl.utils import UserError, unknown_name

from ._language_model import continue_texts

GENERATORS = ("learned", "rule", "neural")
OWN = "own"  # stands for the task's own template
MAX_TOKENS = 1024  # more than any text tower takes, to count what a text needs


def check_generator(options) -> None:
    """Refuse a generator, or templates, that the node TRAINER.COT cannot have.

    Raises:
        UserError: an unknown generator, no template, one without ``{}``.
    """
    if options.GENERATOR not in GENERATORS:
        raise unknown_name("TRAINER.COT.GENERATOR", options.GENERATOR, GENERATORS)
    if options.GENERATOR == "learned":
        return
    if not options.TEMPLATES:
        raise UserError(
            f"TRAINER.COT.GENERATOR {options.GENERATOR} needs TEMPLATES, one per step, such as "
            "['a photo of {}', '{task}: {}', 'own']"
        )
    for template in options.TEMPLATES:
        rest = str(template).replace("{task}", "").replace("{}", "", 1)
        if template != OWN and (not _has_place(template) or set(rest) & set("{}")):
            raise UserError(
                f"template {template!r} of TRAINER.COT.TEMPLATES must hold {{}} once, where the "
                "class name goes; {task} and 'own' (the task's own template) are allowed beside it"
            )
    if options.LM_TOKENS < 1:
        raise UserError(f"TRAINER.COT.LM_TOKENS must be 1 or more; got {options.LM_TOKENS}")


def step_texts(options, space: TaskSpace, text: TextTower, n_ctx: int) -> list[list[str]]:
    """What each of the N steps says of each of the C classes, from general to specific.

    "learned": the class name at every step. "rule": TEMPLATES, a step each. "neural": what a
    language model makes of the templates; a text that is too long behind ``n_ctx`` tokens is cut
    at a word, and counted in the log.

    Args:
        options: the node TRAINER.COT.
    """
    if options.GENERATOR == "learned":
        return [list(space.classnames)] * options.CHAIN_LENGTH
    steps = [
        [
            _fill(template, task.name, name, task.templates[0])
            for task in space.tasks
            for name in task.classnames
        ]
        for template in options.TEMPLATES
    ]
    if options.GENERATOR == "rule":
        return steps
    begun = [sentence for step in steps for sentence in step]
    written = continue_texts(options.LM, begun, options.LM_TOKENS)
    fitting = _cut(written, text, text.context_length - n_ctx)
    return [fitting[i : i + space.num_classes] for i in range(0, len(fitting), space.num_classes)]


def _has_place(template: str) -> bool:
    return str(template).replace("{task}", "").count("{}") == 1


def _fill(template: str, task: str, name: str, own: str) -> str:
    """A template with its names in it, without a full stop: every prompt is given one."""
    template = own if template == OWN else template.replace("{task}", task.replace("_", " "))
    return template.replace("{}", name.replace("_", " ")).rstrip(" .")


def _cut(sentences: list[str], text: TextTower, limit: int) -> list[str]:
    """The sentences, cut at a word where they need more than ``limit`` tokens."""
    out, count = [], 0
    for sentence in sentences:
        short = sentence
        while " " in short and _needs(short, text) > limit:
            short = short.rpartition(" ")[0].rstrip(" ,;:-")
        count += short != sentence
        out.append(short)
    if count:
        print(f"{count} of {len(out)} generated prompts were too long and are cut")
    return out


def _needs(sentence: str, text: TextTower) -> int:
    """Tokens of SOS, a sentence, its full stop and EOT."""
    ids = tokenize([f"{sentence}."], MAX_TOKENS, tokenizer=text.tokenizer)
    return int(ids.argmax()) + 1
