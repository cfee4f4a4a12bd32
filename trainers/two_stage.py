"""2SFS: first the towers' norms are tuned, then a classifier on them.

https://github.com/FarinaMatteo/rethinking_fewshot_vlms
"""

from __future__ import annotations

import copy

import torch
from open_clip.transformer import LayerNormFp32
from torch import nn

from clip import CLIP, TextEncoder
from clip.adapters import layer_norms
from dassl.config import CfgNode, Key
from dassl.data import TaskSpace
from dassl.engine import TRAINER_REGISTRY, Step
from prompting.adapted import AdaptedPrompter
from prompting.class_heads import CLASSES, load_without_head
from prompting.precision import PRECISIONS
from prompting.prompter import Features, Prompter
from prompting.stored_features import Storable
from prompting.templates import with_template

from ._by_steps import STEP_KEYS, StepTrainer, cosine

HEAD = "classifier"


class TwoStagePrompter(AdaptedPrompter):
    """Layer norms of both towers that learn first, and a classifier (C, e) that learns then.

    In the first stage text features come from the tuned text tower. The classifier starts with
    them and takes their place.
    """

    def __init__(self, space: TaskSpace, clip: CLIP):
        norms = [norm_copies(tower) for tower in (clip.text_tower, clip.visual)]
        super().__init__(space, clip, *norms)
        self.paths = [*norms[0], *(f"visual.{path}" for path in norms[1])]
        self.norms = nn.ModuleList(norm for part in norms for norm in part.values())
        width = clip.text_tower.out_dim
        self.classifier = nn.Parameter(torch.zeros(space.num_classes, width))
        self.classifies = False
        self.register_load_state_dict_post_hook(_has_classifier)

    @torch.no_grad()
    def start_classifier(self) -> None:
        """Begin the second stage: the norms stay as they are, the classifier learns."""
        self.classifier.copy_(nn.functional.normalize(self.encode().float(), dim=-1))
        self.classifies = True

    def forward(
        self,
        text: TextEncoder,
        image_features: torch.Tensor,
        class_mask: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """The classifier (C, e), or text features in the first stage and for other classes."""
        if self.classifies:
            return self.classifier
        return super().forward(text, image_features, class_mask)

    def encode_image(
        self,
        clip: CLIP,
        images: torch.Tensor,
        outputs: frozenset[str],
        task: torch.Tensor | None = None,
    ) -> Features:
        """Image features (B, e) by the tuned tower, without gradients in the second stage."""
        with torch.set_grad_enabled(torch.is_grad_enabled() and not self.classifies):
            return super().encode_image(clip, images, outputs, task)

    @torch.no_grad()
    def merged_weights(self, clip: CLIP) -> dict[str, torch.Tensor] | None:
        """The weights of ``clip`` by name, with the tuned norms; None if they have other names."""
        state = dict(clip.state_dict())
        if any(f"{path}.weight" not in state for path in self.paths):
            return None
        for path, norm in zip(self.paths, self.norms, strict=True):
            state |= {f"{path}.{name}": p.detach() for name, p in norm.named_parameters()}
        return state


def norm_copies(tower: nn.Module) -> dict[str, nn.Module]:
    """Trainable fp32 copies of a tower's layer norms, by path."""
    return {path: _copy(norm).requires_grad_() for path, norm in layer_norms(tower).items()}


def _copy(norm: nn.LayerNorm) -> nn.LayerNorm:
    """An fp32 copy; of a norm in half precision, it still takes and gives half precision."""
    if norm.weight is None or norm.weight.dtype == torch.float32:
        return copy.deepcopy(norm)
    own = LayerNormFp32(list(norm.normalized_shape), norm.eps, bias=norm.bias is not None)
    own.load_state_dict(norm.state_dict())
    return own.to(norm.weight.device)


def _has_classifier(prompter: nn.Module, keys) -> None:
    prompter.classifies = bool(prompter.classifier.any())


@TRAINER_REGISTRY.register()
class TwoStage(StepTrainer):
    """2SFS, each task separately: layer norms for the first steps, a classifier for the rest."""

    KEY = "TWOSTAGE"
    DEFAULTS = dict(
        PREC=Key("amp", choices=PRECISIONS),
        TEMPLATE="a photo of a {}.",  # one for every dataset; empty: the dataset's own
        FIRST_STAGE=Key(0.6, least=0, most=1),  # share of the steps that tune the norms
        **STEP_KEYS | {"ITERATIONS": Key(300, least=0)},
    )
    free_options = ("FIRST_STAGE", "ITERATIONS", "MIN_LR", "TEMPLATE")
    supports_distributed = False  # the processes would have to start the classifier alike

    def stored_features(self, options: CfgNode) -> Storable:
        return Storable.NONE if layer_norms(self.clip.visual) else Storable.ALL

    def build_prompter(self, options: CfgNode, space: TaskSpace, text: TextEncoder) -> Prompter:
        return TwoStagePrompter(with_template(space, options.TEMPLATE), self.clip)

    @property
    def first_steps(self) -> int:
        """Steps of the first stage."""
        return round(self.options.FIRST_STAGE * self.total_steps)

    def learning_rate(self, number: int) -> float:
        """The rate of a step; each stage has a cosine of its own."""
        first, total = self.first_steps, self.total_steps
        rates = self.cfg.OPTIM.LR, self.options.MIN_LR
        if number < first:
            return cosine(number, first, *rates)
        return cosine(number - first, total - first, *rates)

    def train_step(self, batch: dict, step: Step) -> dict[str, torch.Tensor]:
        """One optimizer step of the stage that the step belongs to."""
        prompter = self.model.prompter
        if not prompter.classifies and step.number >= self.first_steps:
            prompter.start_classifier()
        return super().train_step(batch, step)

    def checkpoint_metadata(self) -> dict:
        """Beside the backbone: the classes of the classifier."""
        return {**super().checkpoint_metadata(), CLASSES: self.dm.space.classnames}

    def bound_tensors(self) -> dict[str, list[str]]:
        """The classifier; its names are in the metadata, as CLASSES."""
        return {HEAD: []}

    def load_model(self, directory: str, epoch: int | None = None) -> None:
        """Load a checkpoint; for other classes the norms alone, which the text features use."""
        if not (directory and load_without_head(self, directory, epoch, HEAD)):
            super().load_model(directory, epoch)

    def method_name(self) -> str:
        return "2SFS"
