"""The registry of trainers; importing it does not import torch."""

from dassl.utils.registry import Registry

TRAINER_REGISTRY = Registry("trainer")
TRAINER_REGISTRY.__doc__ = """Trainers by name. A registered class is built with ``cls(cfg)``;
its attribute ``suite`` says how it handles a suite of several tasks: "joint" (one training over
all), "each" (each task by itself; then also ``cls(cfg, dataset=...)``), or None (it knows no
tasks, and is refused on a suite of more than one); ``pairs`` whether it takes images with texts or
questions."""
