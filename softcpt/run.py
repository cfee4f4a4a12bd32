"""A trained model with its tasks: logits, predictions, text features, prompts."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from dassl.config import CfgNode
from dassl.data import Task
from dassl.engine import SimpleTrainer
from dassl.utils import UserError, naming_damaged, unknown_name
from prompting.stored_features import Storable
from results.schema import FILE as RECORD

from .images import ImageSource, as_list, load_images, name_of
from .prediction import Prediction


class LoadedRun:
    """A finished run that classifies new images; ``softcpt.load_run`` makes one.

    Attributes:
        folder: the run directory.
        record: the content of its ``results.json``.
        trainers: one trainer for all tasks, or one per task if tasks were trained separately.
        renamed: whether names of a task were replaced when the run was loaded.
    """

    def __init__(
        self,
        folder: Path,
        record: dict[str, Any],
        trainers: list[SimpleTrainer],
        renamed: bool = False,
    ):
        self.folder, self.record, self.trainers = folder, record, trainers
        self.renamed = renamed
        self._inferences: dict[int, Callable] = {}
        for trainer in trainers:
            trainer.set_model_mode("eval")

    def __repr__(self) -> str:
        names = ", ".join(task.name for task in self.tasks)
        return f"<LoadedRun {self.folder}: {self.method} on {names}>"

    @property
    def cfg(self) -> CfgNode:
        """The configuration, with the input of the backbone filled in."""
        return self.trainers[0].cfg

    @property
    def method(self) -> str:
        """The name of the method, as ``train.py --trainer`` takes it."""
        return self.cfg.TRAINER.NAME

    @property
    def device(self) -> torch.device:
        """The device that the model is on."""
        return self.trainers[0].device

    def models(self) -> list[nn.Module]:
        """The frozen CLIP with the learned parameters, of every trainer; it computes logits."""
        found = []
        for trainer in self.trainers:
            own = getattr(trainer, "model", None)
            found += [own] if isinstance(own, nn.Module) else trainer.models()
        return found

    @property
    def tasks(self) -> tuple[Task, ...]:
        """The tasks, with name, class names and templates."""
        return tuple(task for trainer in self.trainers for task in trainer.dm.space.tasks)

    @property
    def depends_on_image(self) -> bool:
        """Whether every image has text features of its own."""
        model = getattr(self.trainers[0], "model", None)
        return getattr(getattr(model, "prompter", None), "depends_on_image", False)

    def task_ids(self, task: int | str | None = None) -> list[int]:
        """Numbers of the chosen tasks.

        Args:
            task: a name, a number from 0, or ``task<number>``; None chooses all.

        Raises:
            UserError: there is no such task.
        """
        return find_tasks([one.name for one in self.tasks], task)

    def require_classes(self) -> None:
        """Refuse a run on captions or questions, whose texts belong to the items of its data."""
        if content := self.trainers[0].dm.space.content:
            raise UserError(
                f"{self.folder} was trained on {content}: it has no classes to predict or to export"
            )

    def temperature(self, t: int) -> float:
        """The temperature of ``TEST.CALIBRATION`` that divides a task's logits; 1 without it."""
        with naming_damaged(self.folder / RECORD):
            fitted = self.record.get("calibration", {}).get("tasks", [])
            return float({task["id"]: task["temperature"] for task in fitted}.get(t, 1.0))

    def predict(
        self,
        images: ImageSource | Iterable[ImageSource],
        task: int | str | None = None,
        top: int = 5,
        batch_size: int = 0,
    ) -> list[Prediction]:
        """The most probable classes of each image in each chosen task, image by image.

        Args:
            images: paths or PIL images, or a single one.
            task: as in ``task_ids``.
            top: number of classes per image, at most those of the task; a multi-label task gives
                all classes above its threshold.
            batch_size: images per batch; 0: as in the run's evaluation.

        Raises:
            UserError: an image cannot be read, or there is no such task.
        """
        found = list(self.classify(images, task, top, batch_size))
        for prediction in found:
            if prediction.error:
                raise UserError(prediction.error)
        return found

    def classify(
        self,
        images: ImageSource | Iterable[ImageSource],
        task: int | str | None = None,
        top: int = 5,
        batch_size: int = 0,
        workers: int = 0,
    ) -> Iterator[Prediction]:
        """Yield predictions one by one; that of an image that cannot be read has ``error``.

        Args:
            workers: processes that read images.
        """
        if top < 1:
            raise UserError(f"the number of classes shown must be at least 1; got {top}")
        images, ids, place = as_list(images), self.task_ids(task), 0
        for logits, errors in self._batches(images, ids, batch_size, workers):
            best = [
                self.tasks[t].kind.predict(rows / self.temperature(t), top)
                for t, rows in zip(ids, logits, strict=True)
            ]
            row = 0
            for error in errors:
                image, place = name_of(images[place]), place + 1
                if error:
                    yield Prediction(image, error=error)
                    continue
                for t, (places, values) in zip(ids, best, strict=True):
                    names = tuple(self.tasks[t].classnames[i] for i in places[row])
                    yield Prediction(image, self.tasks[t].name, names, tuple(values[row]))
                row += 1

    def logits(
        self,
        images: ImageSource | Iterable[ImageSource],
        task: int | str | None = None,
        batch_size: int = 0,
    ) -> torch.Tensor:
        """Logits (N, C), fp32 on the CPU; C counts the classes of the chosen tasks, in order.

        They are not divided by the :meth:`temperature`.

        Raises:
            UserError: an image cannot be read, or there is no such task.
        """
        parts = []
        for logits, errors in self._batches(as_list(images), self.task_ids(task), batch_size):
            if any(errors):
                raise UserError(next(filter(None, errors)))
            parts.append(torch.cat(logits, dim=1))
        if not parts:
            raise UserError("there are no images to classify")
        return torch.cat(parts)

    @torch.no_grad()
    def logits_of_pixels(self, pixels: torch.Tensor, ids: Sequence[int]) -> list[torch.Tensor]:
        """Logits (B, C), fp32 on the CPU, of each task for prepared images (B, 3, H, W).

        Args:
            ids: numbers of the tasks.
        """
        inputs: dict[int, Any] = {}  # of the image tower, which runs once if it is frozen
        computed: dict[tuple[int, int], torch.Tensor] = {}
        out = []
        for t in ids:
            trainer, columns = self.place_of(t)
            image_task = self.image_task_of(t)
            place = id(trainer), image_task
            if place not in computed:
                with _autocast(trainer):
                    if image_task not in inputs:
                        own = image_task if len(self.trainers) == 1 else 0  # within its trainer
                        inputs[image_task] = trainer.parse_batch_test(_batch(pixels, own))[0]
                    computed[place] = self.inference_of(t)(inputs[image_task]).float().cpu()
            out.append(computed[place][:, columns])
        return out

    def text_features(self, task: int | str | None = None) -> torch.Tensor:
        """Normalised text features (C, e), fp32 on the CPU, of the classes of the chosen tasks.

        Raises:
            UserError: the method makes none, several per class, or others for every image.
        """
        return torch.cat([self._text_of(t) for t in self.task_ids(task)])

    @torch.no_grad()
    def _text_of(self, t: int) -> torch.Tensor:
        trainer, columns = self.place_of(t)
        fixed = getattr(getattr(trainer, "model", None), "fixed_text_features", None)
        features = None
        if fixed:
            with _autocast(trainer):
                features = fixed()
        if features is None or features.dim() != 2:
            raise UserError(
                f"{self.method} has no single text feature per class that serves every "
                "image: they depend on the image, there are several, or the method uses none"
            )
        return features[columns].float().cpu()

    def prompts(self) -> list[str]:
        """The prompts in words, one per line; learned context tokens are a number in brackets."""
        lines = []
        for trainer in self.trainers:
            if len(self.trainers) > 1:
                lines.append(f"{trainer.dm.space.tasks[0].name}:")
            lines += trainer.show_prompts()
        return lines

    def place_of(self, t: int) -> tuple[SimpleTrainer, slice]:
        """The trainer of a task, and the columns of the task's classes in its logits."""
        if len(self.trainers) > 1:
            return self.trainers[t], slice(None)
        return self.trainers[0], self.trainers[0].dm.space.columns(t)

    def image_task_of(self, t: int) -> int:
        """The task whose image features task ``t`` reads: 0 for all if the image tower is frozen.

        A method may learn in the image tower, for each task by itself.
        """
        trainer = self.trainers[0]
        stored = getattr(trainer, "stored_features", None)
        frozen = stored and stored(trainer.cfg.TRAINER[trainer.KEY]) == Storable.ALL
        return 0 if frozen or (stored is None and len(self.trainers) == 1) else t

    def inference_of(self, t: int) -> Callable:
        """The function from image features to the logits of a task's trainer; its text is encoded
        once."""
        trainer = self.place_of(t)[0]
        if id(trainer) not in self._inferences:
            with torch.no_grad(), _autocast(trainer):
                self._inferences[id(trainer)] = trainer.build_inference("test")
        return self._inferences[id(trainer)]

    def _batches(
        self, images: Sequence[ImageSource], ids: list[int], batch_size: int, workers: int = 0
    ) -> Iterator[tuple[list[torch.Tensor], list[str]]]:
        """Logits (B, C) of each task for the readable images of a batch, and the errors."""
        self.require_classes()
        for pixels, errors in load_images(self.cfg, images, batch_size, workers):
            if len(pixels):
                yield self.logits_of_pixels(pixels, ids), errors
            else:
                yield [torch.empty(0, 1) for _ in ids], errors


def find_tasks(names: list[str], task: int | str | None) -> list[int]:
    """Numbers of the chosen tasks; see ``LoadedRun.task_ids``."""
    if task is None:
        return list(range(len(names)))
    if task in names:
        return [names.index(str(task))]
    number = str(task).removeprefix("task")
    if number.isdecimal() and int(number) < len(names):
        return [int(number)]
    raise unknown_name("task", str(task), [f"{name} (task{t})" for t, name in enumerate(names)])


def _batch(pixels: torch.Tensor, task: int) -> dict[str, torch.Tensor]:
    """A test batch of prepared images (B, 3, H, W) of one task, as a data loader makes it."""
    zeros = torch.zeros(len(pixels), dtype=torch.long)
    return {"img": pixels, "label": zeros, "task": torch.full_like(zeros, task), "domain": zeros}


def _autocast(trainer: SimpleTrainer) -> contextlib.AbstractContextManager:
    """The context in which a trainer evaluates."""
    return trainer.autocast() if hasattr(trainer, "autocast") else contextlib.nullcontext()
