"""The registry of trainers; importing it does not import torch."""

from dassl.utils.registry import Registry

TRAINER_REGISTRY = Registry("trainer")
TRAINER_REGISTRY.__doc__ = """Trainers by name. A registered class is built with ``cls(cfg)``;
its attribute ``suite`` is how it trains a suite of several tasks: "joint" (one training on all
tasks), "each" (each task separately; then also built with ``cls(cfg, dataset=...)``), or None (it
does not know tasks, and more than one is refused). ``pairs``: whether it accepts images with
captions or questions."""
