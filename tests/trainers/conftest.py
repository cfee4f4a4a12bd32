"""What the comparisons with the naive prompts share."""

from __future__ import annotations

import pytest
import torch

from clip import load_backbone

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
