"""The words of a chain's steps: what every step says of every class."""

from __future__ import annotations

from clip import TextEncoder
from dassl.data import TaskSpace
from dassl.utils import UserError
from image_text import ItemSpace
from prompting.words import cut_texts

from .language_model import continue_texts

GENERATORS = ("learned", "rule", "neural")
OWN = "own"  # stands for the task's own template


def check_generator(options) -> None:
    """Refuse a generator, or templates, that the node TRAINER.COT cannot have.

    Raises:
        UserError: no template, or one without ``{}``.
    """
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


def check_image_words(options) -> None:
    """Refuse what cannot be said of an image.

    Raises:
        UserError: top classes for a generator without words, or for a template without
            ``{image}``.
    """
    if options.TOP_CLASSES and options.GENERATOR == "learned":
        raise UserError(
            "TRAINER.COT.TOP_CLASSES puts words on the image in front of those of a step: it needs "
            "TRAINER.COT.GENERATOR neural, or rule"
        )
    template = str(options.IMAGE_TEMPLATE)
    rest = template.replace("{task}", "").replace("{image}", "", 1)
    if "{image}" not in template or set(rest) & set("{}"):
        raise UserError(
            f"TRAINER.COT.IMAGE_TEMPLATE must hold {{image}} once, where the names of the image's "
            f"top classes go, and nothing else in braces but {{task}}; got {template!r}"
        )


def step_texts(options, space: TaskSpace, text: TextEncoder, n_ctx: int) -> list[list[str]]:
    """What each of the N steps says of each of the C classes, from general to specific.

    "learned": the class name at every step. "rule": TEMPLATES, a step each. "neural": what a
    language model makes of the templates; a text that is too long behind ``n_ctx`` tokens is cut
    at a word, and counted in the log.

    Args:
        options: the node TRAINER.COT.

    Raises:
        UserError: templates for captions or answers, which have their own words.
    """
    if options.GENERATOR == "learned":
        return [space.classnames] * options.CHAIN_LENGTH
    if isinstance(space, ItemSpace):
        raise UserError(
            f"TRAINER.COT.GENERATOR {options.GENERATOR} says something of class names; "
            f"{space.content} have their own words: take learned"
        )
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
    unread = steps[:-1] if options.AGGREGATOR == "last" else []  # the model need not go on there
    begun = [sentence for step in steps[len(unread) :] for sentence in step]
    written = continue_texts(options.LM, begun, options.LM_TOKENS)
    fitting = cut_texts(written, text, n_ctx)
    places = range(0, len(fitting), space.num_classes)
    return [*unread, *(fitting[i : i + space.num_classes] for i in places)]


def step_sources(options) -> list[str]:
    """Where the words of each of the N steps come from, for people."""
    if options.GENERATOR == "learned":
        return ["the name alone"] * options.CHAIN_LENGTH
    more = f", continued by {options.LM}" if options.GENERATOR == "neural" else ""
    return [f"{template!r}{more}" for template in options.TEMPLATES]


def words_of(name: str) -> str:
    """A name as it stands in a sentence."""
    return name.replace("_", " ")


def _has_place(template: str) -> bool:
    return str(template).replace("{task}", "").count("{}") == 1


def _fill(template: str, task: str, name: str, own: str) -> str:
    """A template with its names in it, without a full stop: every prompt is given one."""
    template = own if template == OWN else template.replace("{task}", words_of(task))
    return template.replace("{}", words_of(name)).rstrip(" .")
