"""What every method shares: a frozen CLIP, one prompter, one optimizer step, one evaluation."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from clip import load_backbone
from clip.text import TextTower
from dassl.config import CfgNode
from dassl.data.datasets import DatasetBase
from dassl.data.tasks import TaskSpace
from dassl.optim import build_lr_scheduler, build_optimizer
from dassl.utils import UserError, distributed
from prompting.equal_names import refuse_equal_classes
from prompting.fitting import FittingTrainer
from prompting.precision import choose_precision, prepare_clip, time_text, to_device, with_input_of
from prompting.prompt_learner import names_with_contexts, show_prompts
from prompting.prompted_clip import PromptedCLIP
from prompting.questions import questions_of
from prompting.stored_features import Features, cached_loaders, field_of
from prompting.text_chunks import parse_chunk
from prompting.upstream import load_released


class PromptTrainer(FittingTrainer):
    """Base of the methods: set KEY and DEFAULTS, and override :meth:`build_prompter`.

    KEY: the method's node under ``cfg.TRAINER``, for example "COOP".
    DEFAULTS: that node's keys and default values, which a YAML or the command line may change.
    suite: what becomes of several tasks, see TRAINER_REGISTRY.
    """

    KEY = ""
    DEFAULTS: dict[str, Any] = {}
    suite = "each"
    needs_all_classes = False  # whether the loss reads classes that no image of the batch may have
    image_outputs = frozenset({"global"})  # what the image tower must give

    @classmethod
    def add_config(cls, cfg: CfgNode) -> None:
        """Add the method's own node to the configuration."""
        cfg.TRAINER[cls.KEY] = CfgNode(dict(cls.DEFAULTS))

    # ------------------------------------------------------------------ hooks of a method

    def build_prompter(self, options: CfgNode, space: TaskSpace, text: TextTower) -> nn.Module:
        """The learnable module of this method; :class:`PromptedCLIP` says how it is called."""
        raise NotImplementedError(f"{type(self).__name__} must override build_prompter")

    def choose_classes(self, batch: dict) -> torch.Tensor | None:
        """Mask (C,) of the classes scored in this step; None for all."""
        return self.dm.space.scored(batch)

    def compute_logits(
        self, features: Features, class_mask: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Logits (B, C) of image features."""
        return self.model.logits(features, class_mask)

    def compute_loss(
        self, logits: torch.Tensor, batch: dict, class_mask: torch.Tensor | None = None
    ) -> dict[str, torch.Tensor]:
        """Named losses whose sum is minimised; "loss" is the cross-entropy within the tasks."""
        smoothing = self.cfg.OPTIM.LABEL_SMOOTHING
        return {
            "loss": self.dm.space.cross_entropy(
                logits, batch["label"], batch["task"], class_mask, label_smoothing=smoothing
            )
        }

    def backward(self, losses: dict[str, torch.Tensor]) -> None:
        """Gradients of the sum of the losses."""
        loss = sum(losses.values())
        self.detect_anomaly(loss)
        self.scaler.scale(loss).backward()

    def from_upstream(self, states: dict[str, dict[str, torch.Tensor]]) -> dict[str, torch.Tensor]:
        """The prompter's state dict from those of the released code's modules, by their names."""
        raise UserError(f"{type(self).__name__} reads no checkpoints of CoOp's or SoftCPT's code")

    # ------------------------------------------------------------------ given

    @property
    def supports_distributed(self) -> bool:
        """Whether several processes can do a run: not if the gradient is shaped in each."""
        own = type(self).backward, type(self).forward_backward
        return own == (PromptTrainer.backward, PromptTrainer.forward_backward)

    def __init__(self, cfg: CfgNode, dataset: DatasetBase | None = None):
        device = "cuda" if torch.cuda.is_available() and cfg.USE_CUDA else "cpu"
        options = cfg.TRAINER[self.KEY]
        self.precision = choose_precision(options.PREC, device)
        backbone = cfg.MODEL.BACKBONE
        if not backbone.NAME:
            raise UserError(
                "MODEL.BACKBONE.NAME is empty: choose a backbone with --config-file or "
                "--backbone (train.py --list shows them)"
            )
        frozen = "fp16" if self.precision == "fp16" else "fp32"
        self.clip = load_backbone(backbone.NAME, backbone.ARCH, device=device, precision=frozen)
        self.clip.check_outputs(self.image_outputs)
        prepare_clip(self.clip, cfg.COMPUTE)
        self.text_chunk = parse_chunk(cfg.MODEL.TEXT_CHUNK)
        super().__init__(with_input_of(cfg, self.clip), dataset)

    def build_data_loader(self) -> None:
        """The loaders; with stored image features if FEATURES.MODE asks for them."""
        super().build_data_loader()
        cached_loaders(self)

    def build_model(self) -> None:
        """The prompter on the frozen CLIP; what it learns is the optimizer's list."""
        space, text = self.dm.space, self.clip.text_tower
        refuse_equal_classes(space, text)
        prompter = self.build_prompter(self.cfg.TRAINER[self.KEY], space, text)
        model = PromptedCLIP(
            self.clip, prompter, self.image_outputs, self.text_chunk, self.cfg.COMPUTE.GRAPHS
        )
        model.questions = questions_of(space, text, prompter)
        self.model = model.to(self.device)
        time_text(self.clock, prompter)
        distributed.same_everywhere(prompter.state_dict().values())
        amp = self.precision == "amp"
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=amp)
        learned = [p for p in prompter.parameters() if p.requires_grad and self.sgd]
        optim = sched = None
        if learned:
            optim = build_optimizer(learned, self.cfg.OPTIM)
            sched = build_lr_scheduler(optim, self.cfg.OPTIM)
        self.register_model("prompt_learner", prompter, optim, sched)

    def show_prompts(self) -> list[str]:
        """The prompts in words, one per line, for ``--show-prompts``."""
        lines = show_prompts(self.model.prompter)
        lines += self.model.questions.show() if self.model.questions else []
        return lines or [f"{type(self).__name__} puts no learned context beside names"]

    def model_info(self) -> dict:
        """What the run's record keeps of the model."""
        options = self.cfg.TRAINER[self.KEY].to_dict()
        weights, precision = self.clip.weights_hash, self.precision
        return {"options": options, "weights": weights, "precision": precision}

    def checkpoint_metadata(self) -> dict:
        """The frozen weights, and the names that learned tensors belong to."""
        facts = {"backbone (sha256 of its weights)": self.clip.weights_hash}
        return {**facts, "set of names": self.class_bound_names()}

    def class_bound_names(self) -> list[str]:
        """Hook: names of classes or tasks that what is learned is for, and no others; by default
        those that have a context each."""
        return names_with_contexts(self.model.prompter)

    def load_model(self, directory: str, epoch: int | None = None) -> None:
        """Load a checkpoint of this trainer, or one of CoOp's or SoftCPT's released code."""
        if not load_released(self, directory, epoch):
            super().load_model(directory, epoch)

    def forward_backward(self, batch: dict) -> dict[str, torch.Tensor]:
        """One optimizer step on a batch."""
        chosen = class_mask = self.choose_classes(batch)  # where the labels still are on the CPU
        # a CUDA graph of all tasks costs less than launching those of the batch, which vary
        graphed = chosen is None and self.model.text.tower.graphed
        if not (self.needs_all_classes or graphed):
            class_mask = self.dm.space.of_tasks(batch["task"], class_mask)
        batch = {**batch, "question": self.dm.space.asked(batch["label"])}
        batch = {k: to_device(v, self.device) for k, v in batch.items()}
        with self.autocast():
            features = batch["features"] = self.image_features(batch)  # a loss may read them too
            self.model.text.plan(lambda: self.compute_logits(features, chosen))
            logits = self.compute_logits(features, class_mask)
            losses = self.compute_loss(logits, batch, class_mask)
        self.model_zero_grad()
        with self.clock.part("rest"):
            # each process takes its part of the loss: see dassl.utils.distributed
            parts = distributed.world_size()
            self.backward({name: loss / parts for name, loss in losses.items()})
            distributed.sum_gradients(self.model.prompter.parameters())
        self.model_update()
        if self.batch_idx + 1 == self.num_batches:
            self.update_lr()
        return {name: loss.detach() for name, loss in losses.items()}

    def model_update(self, names=None) -> None:
        """Step each optimizer, through the loss scaler under amp."""
        for optim in self.optimizers(names):
            for _ in range(self.optim_steps_per_batch):
                self.scaler.step(optim)
        self.scaler.update()

    def autocast(self) -> torch.autocast:
        """Half precision where it is safe, if PREC is amp."""
        return torch.autocast(self.device.type, enabled=self.precision == "amp")

    def test(self, split: str | None = None) -> float:
        """Evaluate; the prompts are encoded once if they do not depend on the image."""
        self.set_model_mode("eval")
        read = self.dm.space.tested(split or self.cfg.TEST.SPLIT)
        with self.autocast(), self.model.frozen_text(read):
            return super().test(split)

    def image_features(self, batch: dict) -> Features:
        """The features of a batch: the stored ones it brings, or those of its images; as
        "question" (B,) the numbers of what is asked, if anything is."""
        if "features" in batch:
            return batch["features"]
        asked = batch["question"] if "question" in batch else self.dm.space.asked(batch["label"])
        more = {} if asked is None else {"question": asked}
        names = self.image_outputs
        if "feat" in batch:
            return more | {name: to_device(batch[field_of(name)], self.device) for name in names}
        with self.clock.part("image"):
            own = self.model.encode_image(to_device(batch["img"], self.device))
        images = len(batch["label"])
        return more | {name: distributed.gather_rows(x, images) for name, x in own.items()}

    def parse_batch_test(self, batch: dict) -> tuple[Features, torch.Tensor]:
        """Features and labels."""
        return self.image_features(batch), batch["label"].to(self.device)

    def model_inference(self, images: torch.Tensor | Features) -> torch.Tensor:
        """Logits (B, C) of images (B, 3, H, W) or of their features."""
        features = images if isinstance(images, dict) else self.model.encode_image(images)
        return self.compute_logits(features)
