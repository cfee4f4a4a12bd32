"""What a method declares and overrides: its hooks, with defaults that suit CoOp."""

from __future__ import annotations

import torch

from clip import TextEncoder
from clip.model import CLIP
from dassl.config import CfgNode
from dassl.data.tasks import TaskSpace
from dassl.engine import Step, TrainerX
from dassl.utils import UserError
from prompting.fitting import NO_FITTING, Fitting
from prompting.loss_scale import LossScaler
from prompting.prompt_learner import contexts_per_name
from prompting.prompted_clip import PromptedCLIP
from prompting.prompter import Features, ModelOutput, Prompter
from prompting.stored_features import Storable
from prompting.templates import TemplatePrompter, with_template


class MethodHooks(TrainerX):
    """The hooks of a method, and the attributes that it declares; called by ``PromptTrainer``.

    The other attributes that a class declares are documented in ``TrainerBase``.
    """

    suite = "each"
    supports_distributed = True  # False for a method with its own backward
    weighs_tasks = True
    sgd = True  # False: the learned tensors are set by build_fitting only
    refused_labels: dict[str, str] | None = {}  # kinds that its loss cannot take, with the reason
    uses_templates = False  # whether the loss uses hand-written prompts (key TEMPLATE)
    needs_all_classes = False  # whether the loss uses classes of tasks that are not in the batch
    image_outputs = frozenset({"global"})  # outputs of the image tower that the method needs

    clip: CLIP  # frozen
    model: PromptedCLIP  # the frozen CLIP with the method's prompter
    templates: TemplatePrompter  # if uses_templates
    scaler: LossScaler

    def build_prompter(self, options: CfgNode, space: TaskSpace, text: TextEncoder) -> Prompter:
        """Hook: the learned module of this method."""
        raise NotImplementedError(f"{type(self).__name__} must override build_prompter")

    def build_templates(
        self, options: CfgNode, space: TaskSpace, text: TextEncoder
    ) -> TemplatePrompter:
        """Hook: the hand-written prompts, ``self.templates``, if ``uses_templates``."""
        return TemplatePrompter(with_template(space, options.TEMPLATE), text)

    def parameter_groups(self, prompter: Prompter) -> list:
        """Hook: the tensors that the optimizer steps, or groups of them, as torch takes them."""
        return [p for p in prompter.parameters() if p.requires_grad]

    def bound_tensors(self) -> dict[str, list[str]]:
        """Hook: learned tensors of single classes or tasks; by default their own contexts."""
        return contexts_per_name(self.model.prompter)

    def stored_features(self, options: CfgNode) -> Storable:
        """Hook: which image features can be stored."""
        return Storable.ALL

    def build_fitting(self, options: CfgNode) -> Fitting:
        """Hook: how the method learns without SGD; by default it does not."""
        return NO_FITTING

    def choose_classes(self, batch: dict, step: Step) -> torch.Tensor | None:
        """Hook: mask (C,) of the classes scored in this step; None for all."""
        return self.dm.space.scored(batch)

    def forward(
        self,
        features: Features,
        class_mask: torch.Tensor | None = None,
        text_features: torch.Tensor | None = None,
    ) -> ModelOutput:
        """Hook: logits (B, C) and the features behind them; see PromptedCLIP.forward_features."""
        return self.model.forward_features(features, class_mask, text_features)

    def compute_loss(
        self, output: ModelOutput, batch: dict, class_mask: torch.Tensor | None = None
    ) -> dict[str, torch.Tensor]:
        """Hook: named losses, whose sum is minimised; "loss" is the cross-entropy within tasks."""
        smoothing = self.cfg.OPTIM.LABEL_SMOOTHING
        loss = self.dm.space.cross_entropy(
            output.logits, batch["label"], batch["task"], class_mask, smoothing, self.task_weights
        )
        return {"loss": loss}

    def backward(self, losses: dict[str, torch.Tensor]) -> None:
        """Hook: compute the gradients, by default of the sum of the losses."""
        loss = sum(losses.values())
        self.detect_anomaly(loss)
        self.scaler.scale(loss).backward()

    def from_upstream(self, states: dict[str, dict[str, torch.Tensor]]) -> dict[str, torch.Tensor]:
        """Hook: the prompter's state dict, from the state dicts of the released code by module."""
        raise UserError(f"{type(self).__name__} reads no checkpoints of CoOp's or SoftCPT's code")
