"""How the tiny CLIP is pre-trained, in numbers."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path

from .. import _archs

VERSIONS_OF = ("torch", "open_clip_torch", "matplotlib", "pillow")
SOURCES = ("recipe.py", "digits.py", "captions.py", "pretrain.py")


@dataclass(frozen=True)
class Recipe:
    """Chosen by zero-shot accuracy on the pool half of the real digits (benchmarks/tiny_recipe.py).

    Args:
        images: rendered digits per step. captions: captions per step.
        arch: the name of the tiny architecture.
        threads: pinned, since the order of sums, and so the last bit, depends on it; one, since
            more wait for each other for minutes where the machine is busy.
    """

    steps: int = 180
    images: int = 128
    captions: int = 96
    lr: float = 2e-3
    warmup: int = 50
    betas: tuple[float, float] = (0.9, 0.98)
    weight_decay: float = 0.05
    max_norm: float = 1.0
    seed: int = 0
    threads: int = 1
    arch: str = "tiny"

    def fingerprint(self) -> str:
        """Changes with anything that the weights depend on."""
        digest = hashlib.sha256(
            json.dumps([asdict(self), _archs.TINIES[self.arch]], sort_keys=True).encode()
        )
        for package in VERSIONS_OF:
            digest.update(f"{package} {metadata.version(package)}".encode())
        for name in SOURCES:
            digest.update((Path(__file__).parent / name).read_bytes())
        return digest.hexdigest()[:16]


VIT = Recipe(arch="tiny-vit", steps=600, captions=48)
