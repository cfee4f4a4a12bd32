"""A trainer that builds its data and evaluator, saves checkpoints, resumes and tests."""

from __future__ import annotations

import datetime
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import torch

from dassl.config import CfgNode
from dassl.data import DataManager, DatasetBase, Datum, EpochDataLoader, build_data_loader
from dassl.evaluation import build_evaluator
from dassl.evaluation.predictions import Predictions
from dassl.utils import Stopwatch, UserError, choose_device, distributed, unknown_name

from .base import TrainerBase
from .calibration import Temperatures
from .checkpoints import BEST, load_strictly
from .checks import check_suite, check_test, check_training, check_validation
from .dry_run import count_learned, describe_trainer
from .evaluate import evaluate
from .init_from import init_from_runs
from .label_bias import label_biases, restore_label_biases, set_label_biases
from .loggers import check_loggers
from .resume import load_resume, save_resume
from .task_weights import build_task_weights, check_task_weights

# Kinds of work in training and evaluation; text is all forward and backward work of a prompter.
PARTS = ("data", "image", "text", "rest")
SPLITS = ("val", "test")


class SimpleTrainer(TrainerBase):
    """Builds data, model and evaluator from the configuration; trains, saves and tests.

    Args:
        cfg: the whole configuration.
        dataset: the data to train on; None builds what ``cfg.DATASET`` names.
    """

    temperatures: Temperatures | None = None  # of the last evaluation, as in TEST.CALIBRATION
    predictions: Predictions | None = None  # of the last evaluation
    stored_temperatures: dict[str, float] = {}  # by task name, to use instead of fitting them
    biases_set = False  # whether set_label_biases has set them

    def __init__(self, cfg: CfgNode, dataset: DatasetBase | None = None):
        super().__init__()
        if not self.supports_distributed:
            distributed.refuse(type(self).__name__)
        cfg.check()
        check_loggers(cfg.LOGGERS)
        self.check_cfg(cfg)
        self.device = torch.device(choose_device(cfg.USE_CUDA))
        self.cfg = cfg
        self.start_epoch = self.epoch = 0
        self.max_epoch = cfg.OPTIM.MAX_EPOCH
        self.output_dir = Path(cfg.OUTPUT_DIR)
        self.clock = Stopwatch(PARTS, self.device)
        self._dataset = dataset
        self.build_data_loader()
        check_suite(self, cfg, self.dm.space)
        check_test(self)
        weights = build_task_weights(cfg.OPTIM, self.dm.space, self.dataset.train_x or ())
        self.task_weights = weights.to(self.device)
        self.build_model()
        if cfg.MODEL.INIT_WEIGHTS:
            self.load_init_weights(cfg.MODEL.INIT_WEIGHTS)
        self.carried = init_from_runs(self, cfg.MODEL.INIT_FROM) if cfg.MODEL.INIT_FROM else {}
        self.evaluator = build_evaluator(cfg, lab2cname=self.lab2cname, space=self.dm.space)

    def check_cfg(self, cfg: CfgNode) -> None:
        """Hook: refuse a configuration that this trainer cannot use."""

    def validation_selected(self) -> list[str]:
        """What the validation images select: the model ("best_val"), values of the method."""
        best = self.cfg.TEST.FINAL_MODEL == "best_val" and not self.cfg.TEST.NO_TEST
        return ["best_val"] if best else []

    def loader_of(self, split: str):
        """The loader of the split "val" or "test"."""
        if split not in SPLITS:
            raise unknown_name("split", split, SPLITS)
        loader = getattr(self, f"{split}_loader")
        if loader is None:
            raise UserError(
                f"{self.cfg.DATASET.NAME} has no {split} images; choose another TEST.SPLIT or "
                "TEST.FINAL_MODEL, or set the values that the method would choose on these images"
            )
        return loader

    def training_images(self, items: Sequence[Datum] | None = None) -> EpochDataLoader:
        """A loader of every training image, or of ``items``, once, as an evaluation reads them."""
        return build_data_loader(
            self.cfg,
            data_source=self.dataset.train_x if items is None else items,
            batch_size=self.cfg.DATALOADER.TEST.BATCH_SIZE,
            is_train=False,
        )

    @property
    def test_loader(self):
        """The loader of the test images; an error before the model is selected."""
        if self.selecting_model:
            raise RuntimeError(
                "the test images cannot be read before the model is selected; use val"
            )
        return self._test_loader

    @test_loader.setter
    def test_loader(self, loader) -> None:
        self._test_loader = loader

    def build_data_loader(self) -> None:
        """Hook: build the data manager and the loaders."""
        self.dm = DataManager(self.cfg, dataset=self._dataset)
        self.train_loader_x = self.dm.train_loader_x
        self.train_loader_u = self.dm.train_loader_u
        self.val_loader, self.test_loader = self.dm.val_loader, self.dm.test_loader
        self.num_classes, self.lab2cname = self.dm.num_classes, self.dm.lab2cname

    def build_model(self) -> None:
        """Hook: build the model, its optimizer and schedule, and register them."""
        raise NotImplementedError(f"{type(self).__name__} must override build_model")

    # ------------------------------------------------------------------ training

    def train(self, start_epoch: int | None = None, max_epoch: int | None = None) -> None:
        """Train, continuing a stopped run in the same folder, then test."""
        check_validation(self)
        set_label_biases(self)
        try:
            super().train(
                self.start_epoch if start_epoch is None else start_epoch,
                self.max_epoch if max_epoch is None else max_epoch,
            )
        finally:
            self.close_writer()

    def training_state(self) -> dict:
        weights, biases = self.task_weights.state_dict(), label_biases(self)
        return {**super().training_state(), "task_weights": weights, "label_biases": biases}

    def load_training_state(self, state: dict, path: str | Path) -> None:
        super().load_training_state(state, path)
        load_strictly(self.task_weights, state.get("task_weights", {}), path)
        restore_label_biases(self, state.get("label_biases", {}))

    def learns_from_images(self) -> bool:
        """Whether training needs images: by default, whether there is an optimizer."""
        return bool(self.optimizers())

    def before_train(self) -> None:
        """Restore the state of a stopped run; open the loggers of the curves."""
        check_training(self)
        sampler = self.cfg.DATALOADER.TRAIN_X.SAMPLER
        check_task_weights(self.cfg.OPTIM, self.dm.space, sampler)
        self.start_epoch = load_resume(self, self.output_dir)
        if not self.start_epoch and self.cfg.RESUME:
            self.start_epoch = load_resume(self, self.cfg.RESUME, needed=True)
        if self.start_epoch:
            print(f"Resuming after epoch {self.start_epoch} of {self.max_epoch}")
        self.init_writer()
        self.time_start = time.time()
        self.state_saved = time.monotonic()

    def after_train(self) -> None:
        """Test the selected model."""
        print("Finished training")
        if not self.cfg.TEST.NO_TEST:
            self.test()
        elapsed = datetime.timedelta(seconds=round(time.time() - self.time_start))
        print(f"Elapsed: {elapsed}")

    def deploy(self) -> None:
        """Select the model to test, as in ``TEST.FINAL_MODEL``."""
        if self.keeps_best():
            print("Deploying the model with the best validation result")
            self.load_model(self.output_dir)
        else:
            print("Deploying the model of the last epoch")

    def keeps_best(self) -> bool:
        """Whether training saves the model with the best validation result."""
        return "best_val" in self.validation_selected() and bool(self.optimizers())

    def after_epoch(self) -> None:
        """Evaluate on the validation images if they select the model; save checkpoints."""
        last = self.epoch + 1 == self.max_epoch
        if self.keeps_best():
            result = self.test(split="val")
            if result > self.best_result:
                self.best_result = result
                self.save_model(self.epoch, self.output_dir, val_result=result, model_name=BEST)
        every = self.cfg.TRAIN.CHECKPOINT_FREQ
        if last or (every > 0 and (self.epoch + 1) % every == 0):
            self.save_model(self.epoch, self.output_dir)
        if last or time.monotonic() - self.state_saved >= self.cfg.TRAIN.RESUME_SECONDS:
            save_resume(self, self.output_dir, self.epoch + 1)
            self.state_saved = time.monotonic()

    # ------------------------------------------------------------------ test

    def test(self, split: str | None = None) -> float:
        """Evaluate on a split; returns the first number of the evaluator's result."""
        split = split or self.cfg.TEST.SPLIT
        results = evaluate(self, split)
        tasks = self.evaluator.tasks if len(self.evaluator.tasks) > 1 else []
        for name, value in results.items():
            self.write_scalar(f"{split}/{name}", value, self.epoch)
        for task in tasks:
            if task["value"] is not None:
                name = f"{split}/task{task['id']} {task['name']}"
                self.write_scalar(name, task["value"], self.epoch)
        return next(iter(results.values()))

    def build_inference(self, split: str) -> Callable:
        """Hook: a function from the images of a test batch to logits, for one evaluation."""
        return self.model_inference

    def model_inference(self, images):
        """Hook: logits (B, C) of images."""
        return self.model(images)

    def parse_batch_test(self, batch):
        """Hook: images and labels of a test batch, on the device."""
        return batch["img"].to(self.device), batch["label"].to(self.device)

    # ------------------------------------------------------------------ for the run's record

    @property
    def seconds(self) -> dict[str, float]:
        """Seconds of training and evaluation by kind of work."""
        return self.clock.seconds()

    @property
    def dataset(self) -> DatasetBase:
        """The data for training and testing."""
        return self.dm.dataset

    @property
    def selection(self) -> str:
        """How the tested model is selected, for the record."""
        model = self.cfg.TEST.FINAL_MODEL if self.optimizers() else "none"
        values = [name for name in self.validation_selected() if name != "best_val"]
        return f"{model}, {' and '.join(values)} on val" if values else model

    def results(self) -> dict:
        """Tasks, suite, number of learned parameters and weights of tasks, for the run's record."""
        weights, fitted = self.task_weights.current(), self.temperatures
        return {
            "tasks": self.evaluator.tasks,
            "suite": self.evaluator.suite,
            "trainable": {"parameters": sum(map(count_learned, self.models()))},
            **({"balance": {"last_weights": weights}} if weights else {}),
            **({"calibration": fitted.results(self.predictions)} if fitted else {}),
        }

    def bound_tensors(self) -> dict[str, list[str]]:
        """Hook: the learned tensors that belong to single classes or tasks, with their names."""
        return {}

    def class_bound_names(self) -> list[str]:
        """Names of the classes or tasks that learned values are for, and no others."""
        lists = dict.fromkeys(map(tuple, self.bound_tensors().values()))  # equal ones count once
        return [name for names in lists for name in names]

    def describe(self) -> list[str]:
        """Lines for ``--dry-run``."""
        return describe_trainer(self)
