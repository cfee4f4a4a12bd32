"""Evaluates a trainer on a split: metrics, temperatures and predictions."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from dassl.evaluation.predictions import Predictions

from .calibration import fit_temperatures
from .unknown_task import fit_task_choice

if TYPE_CHECKING:
    from .simple_trainer import SimpleTrainer


@torch.no_grad()
def evaluate(trainer: SimpleTrainer, split: str) -> dict[str, float]:
    """The evaluator's result on "val" or "test", by name.

    Sets ``temperatures`` and ``predictions`` of the trainer.
    """
    trainer.set_model_mode("eval")
    evaluator, clock = trainer.evaluator, trainer.clock
    evaluator.reset()
    loader = trainer.loader_of(split)
    infer = trainer.build_inference(split)
    fit_task_choice(trainer, infer)
    trainer.temperatures = found = fit_temperatures(trainer, infer)
    predictions = Predictions(trainer.dm.space, found.values if found else None)
    print(f"Do evaluation on {split} set")
    with clock.part("data"):
        for batch in loader:
            with clock.part("rest"):
                images, label = trainer.parse_batch_test(batch)
                logits, task = infer(images), batch.get("task")
                evaluator.process(logits, label, task)
                predictions.add(logits, label, batch.get("index"), task)
    with clock.part("rest"):
        results = evaluator.evaluate()
    trainer.predictions = predictions
    return results
