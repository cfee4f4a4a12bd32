"""Pairs of images and texts, and questions on images: their tasks, losses and evaluators."""

from .answers import Answers
from .pairs import FreeText, ItemSpace, PairSpace, PairTask
from .questions import QuestionSpace, QuestionTask
from .retrieval import Retrieval

__all__ = [
    "Answers",
    "FreeText",
    "ItemSpace",
    "PairSpace",
    "PairTask",
    "QuestionSpace",
    "QuestionTask",
    "Retrieval",
]
