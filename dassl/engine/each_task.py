"""A run that trains each task of a suite separately."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

from dassl.config import CfgNode
from dassl.data.datasets import DatasetBase
from dassl.evaluation import format_report, summarize
from dassl.utils import UserError, set_random_seed

from .base import TrainerBase
from .calibration import check_calibration
from .checks import check_training, check_validation
from .resume import random_state, set_random_state


class EachTask(TrainerBase):
    """Trains one trainer per task of a suite and reports the tasks together.

    Each task has its own batches, optimizer and schedule, and its checkpoints in the subfolder
    ``task<i>`` of the run. Every task starts from ``cfg.SEED``, so its result equals that of a run
    on this task alone (``DATASET.SUBSAMPLE_TASKS task<i>``).
    """

    suite = "each"

    def __init__(self, cfg: CfgNode, trainer_cls: type, dataset: DatasetBase):
        super().__init__()
        self.cfg, self.dataset, self.space = cfg, dataset, dataset.space
        self._trainers, self._random = [], []
        if not cfg.TEST.NO_TEST:
            check_calibration(cfg, dataset)
        for t, task in enumerate(self.space.tasks):
            values = {
                "OUTPUT_DIR": str(Path(cfg.OUTPUT_DIR) / f"task{t}"),
                "RESUME": str(Path(cfg.RESUME) / f"task{t}") if cfg.RESUME else "",
                "TEST.PER_TASK_RESULT": False,  # it would number every task 0; see _report
                "VERBOSE": False,
            }
            if t in self.space.set_tasks:
                values["TEST.CALIBRATION"] = ""  # it leaves multi-label tasks out
            print(f"Task {t} ({task.name}): {len(task.classnames)} classes, {self._sizes(t)}")
            if cfg.SEED >= 0:
                set_random_seed(cfg.SEED)
            task_cfg, data = cfg.with_values(values), dataset.only_task(t)
            self._trainers.append(trainer_cls(task_cfg, dataset=data))
            self._random.append(random_state())
        self.first = self._trainers[0]
        self.device, self.steps_rule = self.first.device, self.first.steps_rule
        self.selection = self.first.selection

    @property
    def task_trainers(self) -> list[TrainerBase]:
        """One trainer per task."""
        return self._trainers

    def _sizes(self, t: int) -> str:
        parts = {name: getattr(self.dataset, name) or [] for name in ("train_x", "val", "test")}
        return ", ".join(
            f"{sum(item.task == t for item in part)} {name}" for name, part in parts.items()
        )

    def model_info(self) -> dict:
        """Options, weights and precision for the run's record, the same for every task."""
        return self.first.model_info()

    def method_name(self) -> str:
        """The name of this method with its options in tables."""
        return self.first.method_name()

    def train(self, start_epoch=None, max_epoch=None) -> None:
        """Train and test the tasks one after another; finished ones are only tested again."""
        for t, trainer in enumerate(self._trainers):
            with self._naming_task(t):
                check_training(trainer)
                check_validation(trainer)
        for t, trainer in enumerate(self._trainers):
            print(f"Task {t} ({self.space.tasks[t].name})")
            set_random_state(self._random[t])
            trainer.train(start_epoch, max_epoch)
        if not self.cfg.TEST.NO_TEST:
            self._report()

    def test(self, split=None) -> float:
        """Evaluate every task; returns the mean over them."""
        results = [trainer.test(split) for trainer in self._trainers]
        self._report()
        return sum(results) / len(results)

    def load_model(self, directory, epoch=None) -> None:
        """Load each task's models from ``directory/task<i>``.

        If the run trained a single task, its models are loaded for every task (cross-dataset
        transfer).
        """
        if not directory:
            return
        source = Path(directory)
        single = self._holds_one_task(source)
        if single:
            print(f"{source} was trained on one task; it is evaluated on all tasks")
        for t, trainer in enumerate(self._trainers):
            with self._naming_task(t):
                trainer.load_model(source if single else source / f"task{t}", epoch)

    @contextlib.contextmanager
    def _naming_task(self, t: int) -> Iterator[None]:
        """Name the task in the errors of a user."""
        try:
            yield
        except UserError as error:
            raise UserError(f"task {t} ({self.space.tasks[t].name}): {error}") from None

    def _holds_one_task(self, source: Path) -> bool:
        names = self.first.get_model_names()
        there = bool(names) and all((source / name).is_dir() for name in names)
        return there and not (source / "task0").exists()

    @property
    def seconds(self) -> dict[str, float]:
        """Seconds of all tasks by kind of work."""
        keys = self.first.seconds
        return {key: sum(trainer.seconds[key] for trainer in self._trainers) for key in keys}

    def results(self) -> dict:
        """Tasks, with their numbers in the suite, suite and learned parameters, for the record."""
        parts = [trainer.results() for trainer in self._trainers]
        tasks = [{**task, "id": t} for t, part in enumerate(parts) for task in part["tasks"]]
        return {
            "tasks": tasks,
            "suite": summarize(tasks),
            "trainable": {"parameters": sum(p["trainable"]["parameters"] for p in parts)},
            **_calibration_of([part.get("calibration") for part in parts]),
        }

    def describe(self) -> list[str]:
        """Lines for ``--dry-run``, task by task."""
        return ["each task separately:", *self._by_task([t.describe() for t in self._trainers])]

    def show_prompts(self) -> list[str]:
        """The prompts in words, task by task."""
        return self._by_task([t.show_prompts() for t in self._trainers])

    def _by_task(self, lines: list[list[str]]) -> list[str]:
        """The lines of each task below its name."""
        tasks = enumerate(zip(self.space.tasks, lines, strict=True))
        return [line for t, (task, own) in tasks for line in (f"task {t} ({task.name})", *own)]

    def _report(self) -> None:
        out = self.results()
        print("\n".join(format_report(out["tasks"], out["suite"], self.cfg.TEST.PER_TASK_RESULT)))


def _calibration_of(sections: list[dict | None]) -> dict[str, dict]:
    """The section of all tasks from those of each; every task has a temperature of its own."""
    found = [(t, section) for t, section in enumerate(sections) if section]
    if not found:
        return {}
    tasks = [{**task, "id": t} for t, section in found for task in section["tasks"]]
    fitted_on = "+".join(dict.fromkeys(section["fitted_on"] for _, section in found))
    return {"calibration": {"by": "task", "fitted_on": fitted_on, "tasks": tasks}}
