"""The words for each class at each step of a chain."""

from __future__ import annotations

from clip import TextEncoder
from dassl.data import TaskSpace
from dassl.utils import UserError
from image_text import ItemSpace
from prompting.words import cut_texts

from .language_model import continue_texts

GENERATORS = ("learned", "rule", "neural")
OWN = "own"  # replaced by the task's own template


def check_generator(options) -> None:
    """Refuse missing or unusable TEMPLATES of a generator.

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
                f"template {template!r} of TRAINER.COT.TEMPLATES must contain {{}} once, for the "
                "class name; it may also contain {task}, or be 'own' (the task's own template)"
            )


def check_image_words(options) -> None:
    """Refuse unusable settings of sentences about images.

    Raises:
        UserError: TOP_CLASSES with GENERATOR learned, or an IMAGE_TEMPLATE without ``{image}``.
    """
    if options.TOP_CLASSES and options.GENERATOR == "learned":
        raise UserError(
            "TRAINER.COT.TOP_CLASSES adds a sentence to the words of a step, which only "
            "TRAINER.COT.GENERATOR rule and neural have: choose one of them, or set TOP_CLASSES 0"
        )
    template = str(options.IMAGE_TEMPLATE)
    rest = template.replace("{task}", "").replace("{image}", "", 1)
    if "{image}" not in template or set(rest) & set("{}"):
        raise UserError(
            f"TRAINER.COT.IMAGE_TEMPLATE must contain {{image}} once, for the names of the top "
            f"classes, and no other braces than {{task}}; got {template!r}"
        )


def step_texts(options, space: TaskSpace, text: TextEncoder, n_ctx: int) -> list[list[str]]:
    """The words for each of the C classes at each of the N steps, from general to specific.

    "learned": the class name at every step. "rule": the TEMPLATES, one per step. "neural": the
    templates continued by a language model; a text that is too long with ``n_ctx`` context tokens
    is cut at a word, and the log counts them.

    Args:
        options: the node TRAINER.COT.

    Raises:
        UserError: templates for captions or answers.
    """
    if options.GENERATOR == "learned":
        return [space.classnames] * options.CHAIN_LENGTH
    if isinstance(space, ItemSpace):
        raise UserError(
            f"TRAINER.COT.GENERATOR {options.GENERATOR} makes sentences of class names, but the "
            f"data are {space.content}: set GENERATOR learned"
        )
    steps = [
        [
            _fill(template, task_name, name, task.templates[0])
            for task, task_name in zip(space.tasks, space.prompt_names, strict=True)
            for name in task.classnames
        ]
        for template in options.TEMPLATES
    ]
    if options.GENERATOR == "rule":
        return steps
    unused = steps[:-1] if options.AGGREGATOR == "last" else []  # not continued, as not encoded
    beginnings = [sentence for step in steps[len(unused) :] for sentence in step]
    sentences = continue_texts(options.LM, beginnings, options.LM_TOKENS)
    fitting = cut_texts(sentences, text, n_ctx)
    starts = range(0, len(fitting), space.num_classes)
    return [*unused, *(fitting[i : i + space.num_classes] for i in starts)]


def step_sources(options) -> list[str]:
    """The origin of the words of each of the N steps, for ``--show-prompts``."""
    if options.GENERATOR == "learned":
        return ["the name alone"] * options.CHAIN_LENGTH
    suffix = f", continued by {options.LM}" if options.GENERATOR == "neural" else ""
    return [f"{template!r}{suffix}" for template in options.TEMPLATES]


def words_of(name: str) -> str:
    """A name with spaces for underscores."""
    return name.replace("_", " ")


def _has_place(template: str) -> bool:
    return str(template).replace("{task}", "").count("{}") == 1


def _fill(template: str, task: str, name: str, own: str) -> str:
    """A template with its names, without a full stop, which every prompt adds."""
    template = own if template == OWN else template.replace("{task}", words_of(task))
    return template.replace("{}", words_of(name)).rstrip(" .")
