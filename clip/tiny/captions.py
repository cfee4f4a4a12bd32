"""Captions of rendered digits whose truth is known for every image."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass

import torch

from .digits import FAMILIES, THICK, THIN

DIGITS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")


@dataclass(frozen=True)
class Subject:
    """Something that a digit is.

    Args:
        share: how often captions speak of it.
        questions: words of the task, put in front now and then.
        of_digit: its value for 0 .. 9.
        phrases: ways to say each value.
    """

    share: float
    questions: tuple[str, ...]
    of_digit: tuple[int, ...]
    phrases: tuple[tuple[str, ...], ...]


_DIGIT_FORMS = (
    "{}",
    "the digit {}",
    "the number {}",
    "digit {}",
    "a {}",
    "number {}",
    "the numeral {}",
)

SUBJECTS = (
    Subject(
        share=0.5,
        questions=("digit identity: ", "which digit: "),
        of_digit=tuple(range(10)),
        phrases=tuple(tuple(form.format(word) for form in _DIGIT_FORMS) for word in DIGITS),
    ),
    Subject(
        share=0.1,
        questions=("parity: ", "odd or even: "),
        of_digit=(0, 1) * 5,
        phrases=(
            ("even", "an even number", "an even digit", "a number that is even", "even parity"),
            ("odd", "an odd number", "an odd digit", "a number that is odd", "odd parity"),
        ),
    ),
    Subject(
        share=0.14,
        questions=("number of loops: ", "closed loops: "),
        of_digit=(1, 0, 0, 0, 1, 0, 1, 0, 2, 1),
        phrases=(
            (
                "no loops",
                "a digit with no loops",
                "a number with no closed loop",
                "without loops",
                "zero loops",
            ),
            (
                "one loop",
                "a digit with one loop",
                "a number with a single loop",
                "a single closed loop",
            ),
            (
                "two loops",
                "a digit with two loops",
                "a number with two closed loops",
                "a double loop",
            ),
        ),
    ),
    Subject(
        share=0.12,
        questions=("size of the number: ", "less than five or not: "),
        of_digit=(0,) * 5 + (1,) * 5,
        phrases=(
            (
                "less than five",
                "a number below five",
                "a small number",
                "a low digit",
                "smaller than five",
            ),
            (
                "at least five",
                "a number from five up",
                "a large number",
                "a high digit",
                "five or more",
            ),
        ),
    ),
    Subject(
        share=0.14,
        questions=("kind of strokes: ", "curved or straight: "),
        of_digit=(0, 1, 2, 0, 1, 2, 0, 1, 0, 0),
        phrases=(
            ("curved", "a digit made of curves", "round strokes", "a curved digit", "only curves"),
            (
                "straight",
                "a digit made of straight lines",
                "straight strokes",
                "a straight digit",
                "only lines",
            ),
            (
                "both",
                "a digit of lines and curves",
                "mixed strokes",
                "a mixed digit",
                "lines and curves",
            ),
        ),
    ),
)

# Attribute of an image, its value, ways to say it.
STYLES = (
    ("stroke", THIN, ("thin", "light", "fine")),
    ("stroke", THICK, ("thick", "bold", "heavy")),
    ("slant", -1, ("leaning left", "backward slanted")),
    ("slant", 1, ("leaning right", "forward slanted", "italic")),
    ("slant", 0, ("upright",)),
    ("wobble", 1, ("handwritten", "wobbly", "scribbled", "drawn")),
    ("wobble", 0, ("printed", "clean", "typed")),
    ("width", 1, ("wide", "broad", "stretched")),
    ("width", -1, ("narrow", "slim", "tight")),
    ("dim", 1, ("dim", "dark", "faint")),
    ("dim", 0, ("bright", "clear")),
    ("noisy", 1, ("noisy", "dirty", "grainy")),
    ("noisy", 0, ("smooth", "noise free")),
    ("tilt", 1, ("rotated left", "tilted left")),
    ("tilt", -1, ("rotated right", "tilted right")),
    ("family", FAMILIES.index("sans"), ("sans",)),
    ("family", FAMILIES.index("serif"), ("serif",)),
    ("family", FAMILIES.index("mono"), ("monospace",)),
)
STYLE_FORMS = (
    "{subject}, {style}",
    "{style}, {subject}",
    "{style} {subject}",
    "{subject} ({style})",
)

# Repeated entries are drawn more often.
BEGINNINGS = (
    "",
    "",
    "a photo of ",
    "an image of ",
    "a picture of ",
    "a scan of ",
    "this is ",
    "a low resolution photo of ",
    "a blurry photo of ",
    "there is ",
    "we see ",
    "the picture shows ",
    "a small gray image that shows ",
    "a photo of a digit, ",
    "a type of number, ",
    "a close up photo of ",
    "one of many pictures of ",
    "a cropped photo of ",
    "on this piece of paper somebody put ",
    "in the box on the form you can read ",
    "cut out from an old page of a book, showing ",
    "this is what the machine reads from the envelope, it is ",
    "an example of ",
    "number, ",
    "digit, ",
    "question: what is it? answer: ",
    "a picture from a set of pictures of many numbers, and this one is ",
)
ENDINGS = (
    "",
    "",
    "",
    ".",
    ".",
    " on a dark page",
    " in white ink",
    ", a digit",
    ", a type of number",
    " in a small picture",
    " on paper",
)

QUESTION_CHANCE = 0.2
STYLE_CHANCE = 0.4  # twice per caption
SECOND_BEGINNING_CHANCE = 0.3  # so that later positions are trained, too


class Captions:
    """An endless source of captions; the same seed and images give the same ones."""

    def __init__(self, seed: int):
        self.random = random.Random(seed)

    def sample(
        self, attributes: dict[str, torch.Tensor], count: int
    ) -> tuple[list[str], torch.Tensor]:
        """Captions, each of one random image, and which images each is true of (images, count)."""
        values = {name: tensor.tolist() for name, tensor in attributes.items()}
        drawn = [self._draw(attributes, values) for _ in range(count)]
        return [text for text, _ in drawn], torch.stack([true for _, true in drawn], 1)

    def _draw(
        self, attributes: dict[str, torch.Tensor], values: dict[str, list[int]]
    ) -> tuple[str, torch.Tensor]:
        """A caption, and the images that it is true of (images,)."""
        pick = self.random
        image = pick.randrange(len(values["digit"]))
        subject = pick.choices(SUBJECTS, [s.share for s in SUBJECTS])[0]
        value = subject.of_digit[values["digit"][image]]
        true = torch.tensor(subject.of_digit)[attributes["digit"]] == value
        text = pick.choice(subject.phrases[value])
        if pick.random() < QUESTION_CHANCE:
            text = pick.choice(subject.questions) + text
        for _ in range(2):
            if pick.random() < STYLE_CHANCE:
                fitting = [style for style in STYLES if values[style[0]][image] == style[1]]
                name, seen, words = pick.choice(fitting)
                true = true & (attributes[name] == seen)
                text = pick.choice(STYLE_FORMS).format(subject=text, style=pick.choice(words))
        text = pick.choice(BEGINNINGS) + text + pick.choice(ENDINGS)
        if pick.random() < SECOND_BEGINNING_CHANCE:
            text = pick.choice(BEGINNINGS) + text
        return text, true


def vocabulary() -> Iterator[str]:
    """Texts that together hold every token of every caption, joints of punctuation included."""
    for subject in SUBJECTS:
        yield from subject.questions
        for phrases in subject.phrases:
            yield from phrases
    for _, _, words in STYLES:
        yield from words
    yield from BEGINNINGS
    for ending in ENDINGS:
        for form in STYLE_FORMS:
            once = form.format(subject="one", style="thin")
            yield once + ending
            for twice in STYLE_FORMS:
                yield twice.format(subject=once, style="thin") + ending
