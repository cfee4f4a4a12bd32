"""The base of all methods: trains a prompter on a frozen CLIP, calling the method's hooks."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from dassl.config import CfgNode
from dassl.data.datasets import DatasetBase
from dassl.engine import Step
from dassl.optim import build_lr_scheduler, build_optimizer
from dassl.utils import choose_device, distributed
from prompting.equal_names import refuse_equal_classes
from prompting.feature_encoder import FeatureEncoder
from prompting.fitting import split_features
from prompting.loss_scale import LossScaler
from prompting.precision import (
    choose_precision,
    load_frozen_clip,
    time_text,
    to_device,
    with_input_of,
)
from prompting.prompt_learner import show_prompts
from prompting.prompted_clip import PromptedCLIP
from prompting.prompter import Features, Prompter
from prompting.questions import questions_of
from prompting.stored_features import Loaders, with_stored_features
from prompting.task_gradients import task_gradients
from prompting.text_chunks import parse_chunk
from prompting.upstream import load_learned, read_released

from ._hooks import MethodHooks


class PromptTrainer(MethodHooks):
    """Base of the methods: declare KEY and DEFAULTS, and override ``build_prompter``."""

    def __init__(self, cfg: CfgNode, dataset: DatasetBase | None = None):
        device, options = choose_device(cfg.USE_CUDA), cfg.TRAINER[self.KEY]
        self.precision = choose_precision(options.PREC, device)
        self.clip = load_frozen_clip(cfg, self.precision, device, self.image_outputs)
        self.text_chunk = parse_chunk(cfg.MODEL.TEXT_CHUNK)
        self.fitting = self.build_fitting(options)
        super().__init__(with_input_of(cfg, self.clip), dataset)
        self.observers = task_gradients(self)

    def build_data_loader(self) -> None:
        """Build the loaders, with stored image features as in FEATURES.MODE."""
        super().build_data_loader()
        self.encoder = FeatureEncoder(
            self.clip, self.image_outputs, self.cfg, self.precision, self.autocast, self.clock
        )
        loaders = Loaders(self.train_loader_x, self.val_loader, self.test_loader)
        storable = self.stored_features(self.cfg.TRAINER[self.KEY])
        loaders = with_stored_features(self.encoder, loaders, self.max_epoch, storable)
        self.train_loader_x, self.val_loader, self.test_loader = loaders

    def build_model(self) -> None:
        """Build the prompter, the model around it, and the optimizer of the learned tensors."""
        space, text = self.dm.space, self.clip.text_tower
        refuse_equal_classes(space, text)
        options, graphs = self.cfg.TRAINER[self.KEY], self.cfg.COMPUTE.GRAPHS
        prompter = self.build_prompter(options, space, text)
        if self.uses_templates:
            self.templates = self.build_templates(options, space, text)
        prompter.recompute_images = self.cfg.COMPUTE.IMAGE_CHECKPOINT
        questions = questions_of(space, text, prompter)
        model = PromptedCLIP(
            self.clip, prompter, self.image_outputs, self.text_chunk, questions, graphs
        )
        self.model = model.to(self.device)
        time_text(self.clock, prompter)
        distributed.same_everywhere(prompter.state_dict().values())
        amp, scale = self.precision == "amp", self.cfg.OPTIM.LOSS_SCALE
        self.scaler = LossScaler(self.device.type, init_scale=scale, enabled=amp)
        self.register_model("prompt_learner", prompter, *self._build_optimizer(prompter))

    def _build_optimizer(self, prompter: Prompter) -> tuple[Optimizer | None, LRScheduler | None]:
        """The optimizer and the schedule of the learned tensors; None if SGD learns nothing."""
        learned = self.parameter_groups(prompter) if self.sgd else []
        if not learned:
            return None, None
        rate = self.cfg.OPTIM.TASK_WEIGHT_LR
        groups = [*learned, *self.task_weights.parameter_groups(rate)]
        optim = build_optimizer(groups, self.cfg.OPTIM, fused=self.cfg.COMPUTE.FUSED_OPTIMIZER)
        return optim, build_lr_scheduler(optim, self.cfg.OPTIM)

    def train_step(self, batch: dict, step: Step) -> dict[str, torch.Tensor]:
        """One optimizer step on a batch; returns the losses by name."""
        space = self.dm.space
        chosen = class_mask = self.choose_classes(batch, step)  # while the labels are on the CPU
        # one CUDA graph of all tasks is faster than launching the kernels of varying tasks
        repeating = chosen is None and self.model.text.repeating
        if not (self.needs_all_classes or repeating):
            class_mask = space.of_tasks(batch["task"], chosen)
        question_ids = space.question_ids(batch["label"])
        batch = {k: to_device(v, self.device) for k, v in batch.items()}
        with self.autocast():
            features = self.image_features(batch, question_ids)
            self.model.text.plan(lambda: self.forward(features, chosen))
            output = self.forward(features, class_mask)
            losses = self.compute_loss(output, batch, class_mask)
        self.model_zero_grad()
        with self.clock.part("rest"):
            # each process computes a part of the loss, see dassl.utils.distributed
            parts = distributed.world_size()
            self.backward({name: loss / parts for name, loss in losses.items()})
            weights = self.task_weights.parameters()
            distributed.sum_gradients([*self.model.prompter.parameters(), *weights])
        self.model_update()
        if step.ends_epoch:
            self.update_lr()
        return {name: loss.detach() for name, loss in losses.items()}

    def model_update(self, names=None) -> None:
        """Step each optimizer; under amp through the loss scaler."""
        for optim in self.optimizers(names):
            for _ in range(self.optim_steps_per_batch):
                self.scaler.step(optim)
        self.scaler.update()

    def autocast(self) -> torch.autocast:
        """Automatic mixed precision, if PREC is amp."""
        return torch.autocast(self.device.type, enabled=self.precision == "amp")

    def split_features(
        self, split: str, views: int = 0
    ) -> tuple[Features, torch.Tensor, torch.Tensor]:
        """Features, labels and tasks of all "train" or "val" images; see prompting.fitting."""
        return split_features(self, split, views)

    def train(self, start_epoch: int | None = None, max_epoch: int | None = None) -> None:
        """Fit, train by SGD if there is an optimizer, and test."""
        super().train(*((start_epoch, max_epoch) if self.optimizers() else (0, 0)))

    def learns_from_images(self) -> bool:
        return bool(self.optimizers() or self.fitting.fit)

    def before_train(self) -> None:
        """Restore the state of a stopped run, or fit."""
        super().before_train()
        if not self.start_epoch:
            self.fitting.before_training(self)

    def deploy(self) -> None:
        """Load the selected model, tune its values, and save what no epoch has saved."""
        super().deploy()
        self.fitting.after_training(self)

    def validation_selected(self) -> list[str]:
        """What is selected on the validation images: the model ("best_val"), tuned values."""
        return [*super().validation_selected(), *self.fitting.tuned_values]

    def test(self, split: str | None = None) -> float:
        """Evaluate on a split."""
        with self.autocast():
            return super().test(split)

    def build_inference(self, split: str) -> Callable[[Features], torch.Tensor]:
        """A function from image features to logits (B, C); fixed text features are encoded once."""
        class_mask = self.dm.space.tested(split)
        text_features = self.model.fixed_text_features(class_mask)
        return lambda features: self.forward(features, class_mask, text_features).logits

    def image_features(self, batch: dict, question_ids: torch.Tensor | None = None) -> Features:
        """The outputs of the image tower for a batch, stored or computed.

        If the task has questions, "question" (B,), on the CPU, is the index of each image's.

        Args:
            question_ids: (B,) if known; None finds them by the labels.
        """
        if question_ids is None:
            question_ids = self.dm.space.question_ids(batch["label"])
        features = self.model.features_of(batch, self.clock)
        return features if question_ids is None else {**features, "question": question_ids}

    def parse_batch_test(self, batch: dict) -> tuple[Features, torch.Tensor]:
        """Features and labels."""
        return self.image_features(batch), batch["label"].to(self.device)

    def model_inference(self, images: torch.Tensor | Features) -> torch.Tensor:
        """Logits (B, C) of images (B, 3, H, W) or of their features."""
        features = images if isinstance(images, dict) else self.model.encode_image(images)
        return self.forward(features).logits

    def show_prompts(self) -> list[str]:
        """The prompts in words, one per line, for ``--show-prompts``."""
        lines = show_prompts(self.model.prompter)
        lines += self.model.questions.show() if self.model.questions else []
        return lines or [f"{type(self).__name__} learns no context"]

    def model_info(self) -> dict:
        """Options, hash of the frozen weights and precision, for the run's record."""
        options, weights = self.cfg.TRAINER[self.KEY].to_dict(), self.clip.weights_hash
        return {"options": options, "weights": weights, "precision": self.precision}

    def checkpoint_metadata(self) -> dict:
        """The frozen weights, and the names of classes or tasks that learned tensors belong to."""
        backbone = "backbone (sha256 of its weights)"
        return {backbone: self.clip.weights_hash, "set of names": self.class_bound_names()}

    def load_model(self, directory: str, epoch: int | None = None) -> None:
        """Load a checkpoint of this trainer, or one of CoOp's or SoftCPT's released code."""
        states = read_released(directory, epoch, self.clip.text_tower)
        if states is None:
            super().load_model(directory, epoch)
        else:
            load_learned(self.model.prompter, self.from_upstream(states), directory)

    def skipped_steps(self) -> int | None:
        return self.scaler.skipped if self.scaler.is_enabled() else None

    def extra_state(self) -> dict:
        """On a CPU the number of threads, which changes the rounding of a step; the loss scale."""
        on_cpu = self.device.type == "cpu" and self.model.text.planned
        threads, scale = torch.get_num_threads() if on_cpu else 0, self.scaler.state_dict()
        return {**super().extra_state(), "threads": threads, "loss_scale": scale}

    def load_extra_state(self, state: dict) -> None:
        super().load_extra_state(state)
        self.model.text.threads = state.get("threads", 0)
        self.scaler.load_state_dict(state.get("loss_scale", {}))
