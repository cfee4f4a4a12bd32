"""CLIP-LoRA: low-rank updates of both towers' attention. https://arxiv.org/abs/2405.18541"""

from __future__ import annotations

import math

import torch
from torch import nn

from clip import CLIP, TextEncoder
from clip.adapters import attention_layers, projection_width, updated
from dassl.config import CfgNode, Key
from dassl.data import TaskSpace
from dassl.engine import TRAINER_REGISTRY, Step
from dassl.utils import UserError
from prompting.adapted import AdaptedPrompter
from prompting.low_rank import PARTS, LowRankUpdate, SeededDropout
from prompting.precision import PRECISIONS
from prompting.prompter import Prompter
from prompting.stored_features import Storable
from prompting.templates import with_template

from ._by_steps import STEP_KEYS, StepTrainer

ENCODERS = ("both", "text", "vision")
PREFIXES = {"text": "", "vision": "visual."}  # of the towers' paths within a CLIP


class LowRankPrompter(AdaptedPrompter):
    """A low-rank update of the queries, keys and values in every block of one or both towers."""

    def __init__(self, options: CfgNode, space: TaskSpace, clip: CLIP, dropout: SeededDropout):
        names = ENCODERS[1:] if options.ENCODER == "both" else (options.ENCODER,)
        updates: dict[str, LowRankUpdate] = {}  # by path within the whole CLIP
        exchanged: dict[str, dict[str, nn.Module]] = {name: {} for name in ENCODERS}
        for name in names:
            for path, layer in _layers(clip, name, options.ENCODER).items():
                update = LowRankUpdate(
                    projection_width(layer),
                    options.R,
                    options.ALPHA / math.sqrt(options.R),
                    tuple(options.PARTS),
                    dropout,
                    place=len(updates),
                )
                updates[PREFIXES[name] + path] = update
                exchanged[name][path] = updated(layer, update)
        super().__init__(space, clip, exchanged["text"], exchanged["vision"])
        self.paths = list(updates)
        self.updates = nn.ModuleList(updates.values())

    @torch.no_grad()
    def merged_weights(self, clip: CLIP) -> dict[str, torch.Tensor]:
        """The weights of ``clip`` by name, with the updates added."""
        state = dict(clip.state_dict())
        for path, update in zip(self.paths, self.updates, strict=True):
            key = f"{path}.{'weight' if path.endswith('.qkv') else 'in_proj_weight'}"
            state[key] = (state[key].float() + update.weight()).to(state[key].dtype)
        return state


def _layers(clip: CLIP, name: str, encoder: str) -> dict[str, nn.Module]:
    """The attention layers of the tower "text" or "vision"; refuses one without."""
    layers = attention_layers(clip.text_tower if name == "text" else clip.visual)
    if not layers:
        raise UserError(
            f"TRAINER.CLIPLORA.ENCODER {encoder} updates the attention of the {name} tower, but "
            f"that of {clip.name} has none that this project knows; choose a backbone with a "
            "vision transformer such as ViT-B/16, or TRAINER.CLIPLORA.ENCODER text"
        )
    return layers


@TRAINER_REGISTRY.register()
class CLIPLoRA(StepTrainer):
    """Low-rank updates of the towers' attention, each task separately."""

    KEY = "CLIPLORA"
    DEFAULTS = dict(
        PREC=Key("amp", choices=PRECISIONS),
        R=Key(2, least=1),  # rank of the updates
        ALPHA=Key(1.0, above=0),  # updates are scaled by ALPHA / sqrt(R)
        DROPOUT=Key(0.25, least=0, below=1),  # on the input of the updates, in training
        PARTS=Key(PARTS, choices=PARTS),  # which of queries, keys and values are updated
        ENCODER=Key("both", choices=ENCODERS),  # which towers; "text" keeps image features stored
        TEMPLATE="a photo of a {}.",  # one for every dataset; empty: the dataset's own
        **STEP_KEYS,
    )
    free_options = ("DROPOUT", "ITERATIONS", "MIN_LR", "TEMPLATE")
    supports_distributed = False  # each process would draw other dropout masks

    def check_cfg(self, cfg: CfgNode) -> None:
        if not cfg.TRAINER.CLIPLORA.PARTS:
            raise UserError("TRAINER.CLIPLORA.PARTS takes at least one of q, k and v; got none")

    def stored_features(self, options: CfgNode) -> Storable:
        return Storable.ALL if options.ENCODER == "text" else Storable.NONE

    def build_prompter(self, options: CfgNode, space: TaskSpace, text: TextEncoder) -> Prompter:
        self.dropout = SeededDropout(options.DROPOUT)
        space = with_template(space, options.TEMPLATE)
        return LowRankPrompter(options, space, self.clip, self.dropout)

    def train_step(self, batch: dict, step: Step) -> dict[str, torch.Tensor]:
        """One optimizer step with the dropout masks of this seed and step."""
        self.dropout.seed, self.dropout.step = self.cfg.SEED, step.number
        return super().train_step(batch, step)

    def method_name(self) -> str:
        return "CLIP-LoRA"
