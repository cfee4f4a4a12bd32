"""Fixtures of the tests on methods and on what methods are made of."""

from __future__ import annotations

import pytest
import torch

from clip import load_backbone
from dassl.data.datasets import DATASET_REGISTRY
from tests.trainers._asked import toy_questions
from tests.trainers._chains import NAMES

EOT = 49407


@pytest.fixture(scope="session")
def naive_model():
    """Arguments of the naive text tower: the tiny backbone's weights in double precision."""
    clip_model = load_backbone("tiny/random")
    weights = {key: value.double() for key, value in clip_model.state_dict().items()}
    return {"weights": weights, "heads": clip_model.config["text_cfg"]["heads"]}


@pytest.fixture(scope="session")
def token_ids():
    """``token_ids(names, m)``: ids of each name and of what follows it, told apart in CoOp's way.

    The text is "X X X name." with m times X; the ids of the name are as many as it has alone.
    """
    text = load_backbone("tiny/random").text_tower

    def ids(names, m=3):
        out = []
        for name in (name.replace("_", " ") for name in names):
            row = text.tokenize([f"{'X ' * m}{name}."])[0].tolist()
            row = row[1 + m : row.index(EOT) + 1]
            alone = len(text.tokenizer.encode(name))
            out.append((row[:alone], row[alone:]))
        return out

    return ids


@pytest.fixture(scope="session")
def close():
    """``close(a, b)``: relative L2 distance of a to the reference b, at most 1e-5."""

    def check(found, expected, limit=1e-5):
        assert found.shape == expected.shape
        distance = (found.double() - expected).norm() / expected.norm().clamp(min=1e-12)
        assert distance <= limit, f"relative distance {distance:.2e}"

    return check


@pytest.fixture(scope="session")
def batch():
    """Image features (B, e) and their labels in the toy tasks; task 1 is absent."""
    generator = torch.Generator().manual_seed(0)
    return {
        "feat": torch.randn(5, 64, generator=generator),
        "label": torch.tensor([0, 2, 3, 1, 2]),
        "task": torch.tensor([0, 0, 2, 2, 0]),
    }


@pytest.fixture(scope="session")
def one_task():
    """Image features (B, e) and their labels in the last toy task alone."""
    generator = torch.Generator().manual_seed(0)
    return {
        "feat": torch.randn(5, 64, generator=generator),
        "label": torch.tensor([0, 2, 3, 1, 2]),
        "task": torch.zeros(5, dtype=torch.long),
    }


SENTENCES = [f"{a} {b} of a {c}." for a in ("a", "the") for b in ("photo", "kind") for c in NAMES]


@pytest.fixture(scope="session")
def language_model(tmp_path_factory):
    """A folder with a tiny GPT-2 of random weights and a tokenizer trained on a few words."""
    transformers = pytest.importorskip("transformers", reason="transformers is not installed")
    from tokenizers import ByteLevelBPETokenizer

    folder = tmp_path_factory.mktemp("gpt2")
    bpe = ByteLevelBPETokenizer()
    bpe.train_from_iterator(SENTENCES, vocab_size=300, special_tokens=["<|endoftext|>"])
    tokenizer = transformers.PreTrainedTokenizerFast(
        tokenizer_object=bpe._tokenizer, eos_token="<|endoftext|>", bos_token="<|endoftext|>"
    )
    tokenizer.save_pretrained(folder)
    config = transformers.GPT2Config(
        vocab_size=len(tokenizer), n_positions=128, n_embd=32, n_layer=2, n_head=2
    )
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(0)
        transformers.GPT2LMHeadModel(config).save_pretrained(folder)
    return folder


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "softcpt" / "prompts"


@pytest.fixture
def asked(toy):
    """Registers the dataset ToyQuestions."""
    DATASET_REGISTRY.register(force=True)(toy_questions(toy))
    yield
    DATASET_REGISTRY._classes.pop("ToyQuestions")
