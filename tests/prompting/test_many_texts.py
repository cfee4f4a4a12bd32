"""Thousands of texts: embedded when they are asked for, in parts, and with the same result."""

import pytest
import torch

from clip import load_backbone
from dassl.data.datasets import DATASET_REGISTRY
from image_text import FreeText, PairSpace, PairTask
from prompting.encoder_wrapper import EncoderWrapper
from prompting.prompt_learner import PromptLearner, chunk_names
from prompting.prompted_clip import PromptedCLIP
from tests.trainers.test_retrieval import pair_class

SINGLE = ("DATASET.SUBSAMPLE_TASKS", "task2")


class Watched(EncoderWrapper):
    """Counts the prompts of each call."""

    def __init__(self, encoder):
        super().__init__(encoder)
        self.counts = []

    def encode(self, prompts):
        self.counts.append(len(prompts.group))
        return super().encode(prompts)


@pytest.mark.parametrize("class_mask", [None, torch.tensor([True, False, True, True])])
@pytest.mark.parametrize(
    ("method", "options", "images_at_once"),
    [
        ("CoOp", (), 1),
        ("CoOp", ("TRAINER.COOP.CSC", "True"), 1),
        ("CoOp", ("TRAINER.COOP.CLASS_TOKEN_POSITION", "middle"), 1),
        ("CoCoOp", (), 3),
        ("CoT", ("TRAINER.COT.CHUNK", 2), 2),
        ("CoT", ("TRAINER.COT.CLASS_TOKEN_POSITION", "front", "TRAINER.COT.CHUNK", 0), 3),
    ],
)
def test_parts_change_nothing(
    build, monkeypatch, close, method, options, images_at_once, class_mask
):
    """Features and gradients; no part is larger than allowed."""
    trainer = build(method, *SINGLE, *options)
    prompter, text = trainer.model.prompter, Watched(trainer.clip.text_tower)
    images = torch.nn.functional.normalize(torch.randn(3, 64), dim=-1)
    results = []
    for most in (1000, 2):
        monkeypatch.setattr("prompting.prompt_learner.PROMPTS_AT_ONCE", most)
        text.counts.clear()
        found = prompter(text, images, class_mask)
        largest = max(text.counts)
        grads = torch.autograd.grad((found * torch.arange(64)).sum(), list(prompter.parameters()))
        results.append([found, *grads])
    assert largest <= max(2, images_at_once)  # one name for each image is the least
    for mine, whole in zip(*reversed(results), strict=True):
        close(mine, whole.double(), 1e-5)


def test_the_last_part_may_be_smaller():
    text = load_backbone("tiny/random").text_tower
    learner = PromptLearner(list("abcdefg"), text, n_ctx=1)
    class_mask = torch.tensor([1, 1, 0, 1, 1, 1, 0]).bool()
    assert chunk_names(learner, None) == (None,)
    assert chunk_names(learner, class_mask, 3) == (class_mask,)
    parts = chunk_names(learner, class_mask, 1024)  # two names fit
    assert [part.tolist() for part in parts] == [[0, 1], [3, 4], [5]]


def test_a_learner_holds_tokens_not_embeddings():
    """Of 400 captions of 40 words the words are embedded once each."""
    text = load_backbone("tiny/random").text_tower
    words = [f"{a}{b}" for a in "abcdefgh" for b in "mnopq"]
    captions = FreeText(" ".join(words[i % 40 :] + words[: i % 40]) for i in range(400))
    learner = PromptLearner(captions, text, n_ctx=4)
    embedded = learner.embedded()
    tokens = text.tokenize([f"{caption}." for caption in captions])
    length = embedded.shape[1]
    assert torch.equal(embedded, text.embed(tokens[:, 1 : 1 + length]))
    held = sum(b.numel() * b.element_size() for b in learner.buffers())
    assert held < embedded.numel() * embedded.element_size() / 5
    assert len(learner.table) <= 85  # two tokens a word, and three signs


@pytest.mark.parametrize("method", ["CoOp", "CoT"])
def test_an_evaluation_encodes_the_texts_of_its_split(build, toy, monkeypatch, method):
    DATASET_REGISTRY.register(force=True)(pair_class(toy))
    trainer = build(method, dataset="ToyPairs")
    DATASET_REGISTRY._classes.pop("ToyPairs")
    text = Watched(trainer.clip.text_tower)
    monkeypatch.setattr(PromptedCLIP, "text_tower", text)
    trainer.test()
    images, texts = 9, 13
    assert sum(text.counts) == (texts if method == "CoOp" else images * texts)
    text.counts.clear()
    trainer.model_inference({"global": torch.randn(2, 64)})  # not an evaluation: all of them
    assert sum(text.counts) == 22 * (1 if method == "CoOp" else 2)


def test_texts_of_a_split():
    task = PairTask("p", ("a", "b", "c", "d", "e"), (0, 1, 2, 2, 1), (0, 1, 2))
    space = PairSpace((task,))
    assert space.tested("val").tolist() == [False, True, False, False, True]
    assert space.tested("test").tolist() == [False, False, True, True, False]
