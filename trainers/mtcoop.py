"""SoftCPT: soft context sharing for prompt tuning. https://arxiv.org/abs/2208.13474

Journal version: Multi-task prompt tuning with soft context sharing for vision-language models,
Neurocomputing 603 (2024) 128290.
"""

from __future__ import annotations

import torch

from clip import TextEncoder
from dassl.config import CfgNode, Key
from dassl.data import TaskSpace, view_seed
from dassl.data.class_sampling import sample_classes
from dassl.engine import TRAINER_REGISTRY, Step
from dassl.utils import UserError
from prompting.anchors import anchor_losses, teacher_features
from prompting.deep_prompts import check_depth
from prompting.equal_names import refuse_equal_tasks
from prompting.meta_net import META_NETS
from prompting.precision import PRECISIONS, to_device
from prompting.prompt_learner import POSITIONS
from prompting.prompter import ModelOutput, Prompter
from prompting.soft_deep import DeepSoftPrompter
from prompting.soft_prompter import SoftPrompter
from prompting.stored_features import Storable
from prompting.templates import TemplatePrompter
from prompting.upstream import context_of, same_names, tensor_of

from ._base import PromptTrainer


@TRAINER_REGISTRY.register()
class MTCoOp(PromptTrainer):
    """SoftCPT in its six variants: CSC, CLASS_CSC and TASK_CSC choose among them.

    NATA: CSC False, TASK_CSC False. NATS: TASK_CSC True. With CSC True the context is generated
    from the class name too: CATA and CATS share the class context, CSTA and CSTS (CLASS_CSC True)
    have one per class.
    """

    KEY = "MTCOOP"
    DEFAULTS = dict(
        PREC=Key("fp16", choices=PRECISIONS),
        N_CTX=Key(16, least=0),  # generated context tokens
        CTX_INIT="",  # only its number of tokens is used, as the context is generated
        CSC=False,  # generate a context per class, from its name too; CoOp's CSC is CLASS_CSC here
        TOKEN_POSITION=Key("end", choices=POSITIONS),  # position of the class name
        # learned tokens around a task name; the published commands use 4
        TASK_N_CTX=Key(16, least=0),
        TASK_CTX_INIT="",  # words that start the task context
        TASK_CSC=False,  # one task context per task
        TASK_TOKEN_POSITION=Key("end", choices=POSITIONS),
        TASK_VECTORS=False,  # SoftCPT*, our interpretation: learned task features, no task names
        CLASS_N_CTX=Key(16, least=0),  # learned tokens around a class name, if CSC
        CLASS_CTX_INIT="",  # words that start the class context
        CLASS_CSC=False,  # one class context per class
        CLASS_TOKEN_POSITION=Key("end", choices=POSITIONS),
        PG_TYPE=Key("lin", choices=tuple(META_NETS)),  # the meta network
        PG_RATIO=Key(1, least=1),  # bottleneck of the mlp: hidden width = input width // PG_RATIO
        DEPTH=Key(1, least=1),  # text blocks with a generated context of their own
        # generated tokens in the first DEPTH image blocks too, by couplings as in MaPLe
        IMAGE_PROMPTS=False,
        RANK=Key(0, least=0),  # of what generates later blocks' prompts; 0: full matrices
        # weights of PromptSRC's distances to the frozen CLIP with the datasets' templates
        ANCHOR_TEXT=Key(0.0, least=0),
        ANCHOR_IMAGE=Key(0.0, least=0),
        ANCHOR_LOGITS=Key(0.0, least=0),
        # share of the absent classes scored in a step; 0: all of them
        CLS_SAMPLE_RATE=Key(0.0, least=0, most=1),
        FREEZE_CLS_PROMPT=Key(0, choices=(0, 1)),  # 1: the class context is not learned
        UPSTREAM_STEPS=False,  # as many optimizer and schedule steps as the released code
    )
    suite = "joint"
    free_options = (
        "ANCHOR_TEXT",
        "ANCHOR_IMAGE",
        "ANCHOR_LOGITS",
        "CLS_SAMPLE_RATE",
        "FREEZE_CLS_PROMPT",
        "UPSTREAM_STEPS",
    )

    def check_cfg(self, cfg: CfgNode) -> None:
        options = cfg.TRAINER.MTCOOP
        if options.ANCHOR_LOGITS:
            self.refused_labels = {"multi_label": "ANCHOR_LOGITS compares softmax probabilities"}
            self.label_remedy = "set TRAINER.MTCOOP.ANCHOR_LOGITS to 0"
        if options.CLS_SAMPLE_RATE and not options.CSC:
            raise UserError(
                "TRAINER.MTCOOP.CLS_SAMPLE_RATE needs contexts per class: set CSC True, or the "
                "rate to 0"
            )
        if options.CLASS_CSC and not options.CSC:
            raise UserError(
                "TRAINER.MTCOOP.CLASS_CSC gives each class its own class context, which only "
                "CSC True uses: set CSC True, or CLASS_CSC False"
            )
        if options.CLASS_CSC and not options.CLASS_N_CTX and not options.CLASS_CTX_INIT:
            raise UserError("TRAINER.MTCOOP.CLASS_CSC needs CLASS_N_CTX of 1 or more")
        if options.TASK_CSC and not options.TASK_N_CTX and not options.TASK_CTX_INIT:
            raise UserError("TRAINER.MTCOOP.TASK_CSC needs TASK_N_CTX of 1 or more")
        if options.TASK_VECTORS and options.TASK_CSC:
            raise UserError(
                "TRAINER.MTCOOP.TASK_VECTORS replaces the task names, so there is no task context: "
                "set TASK_CSC False, or TASK_VECTORS False"
            )
        if options.IMAGE_PROMPTS and options.CSC:
            raise UserError(
                "TRAINER.MTCOOP.IMAGE_PROMPTS are made of the contexts of tasks, but CSC makes "
                "contexts of classes: set CSC False, or IMAGE_PROMPTS False"
            )
        if options.IMAGE_PROMPTS and not cfg.TEST.TASK_GIVEN:
            raise UserError(
                "TRAINER.MTCOOP.IMAGE_PROMPTS encode an image with the prompts of its task, so "
                "TEST.TASK_GIVEN False cannot compare tasks: set IMAGE_PROMPTS False, or leave "
                "TEST.TASK_GIVEN True"
            )
        if options.DEPTH > 1 and options.TOKEN_POSITION != "end":
            raise UserError(
                f"TRAINER.MTCOOP.DEPTH {options.DEPTH} needs the whole context before the class "
                f"name: set TOKEN_POSITION end, not {options.TOKEN_POSITION}, or DEPTH 1"
            )

    def stored_features(self, options: CfgNode) -> Storable:
        if not options.IMAGE_PROMPTS:
            return Storable.ALL
        return Storable.TEACHER if options.ANCHOR_IMAGE or options.ANCHOR_LOGITS else Storable.NONE

    def build_prompter(self, options: CfgNode, space: TaskSpace, text: TextEncoder) -> Prompter:
        if not options.TASK_VECTORS:
            refuse_equal_tasks(space, text)
        check_depth("MTCOOP.DEPTH", options.DEPTH, text.layers)
        if options.IMAGE_PROMPTS:
            check_depth("MTCOOP.DEPTH", options.DEPTH, self.clip.image_layers)
        if options.DEPTH == 1 and not options.IMAGE_PROMPTS:
            return SoftPrompter(options, space, text)
        return DeepSoftPrompter(options, space, text, self.clip)

    @property
    def anchors(self) -> dict[str, float]:
        """Weights of the distances to the frozen CLIP that are used."""
        options = self.cfg.TRAINER.MTCOOP
        weights = {name: options[f"ANCHOR_{name.upper()}"] for name in ("text", "image", "logits")}
        return {name: weight for name, weight in weights.items() if weight}

    def compute_loss(
        self, output: ModelOutput, batch: dict, class_mask: torch.Tensor | None = None
    ) -> dict[str, torch.Tensor]:
        """Cross-entropy within the tasks, and the distances to the frozen CLIP, if weighted."""
        losses = super().compute_loss(output, batch, class_mask)
        if not self.anchors:
            return losses
        image = output.image_features
        if self.cfg.TRAINER.MTCOOP.IMAGE_PROMPTS and self.anchors.keys() != {"text"}:
            image = teacher_features(self.clip, batch)
        task, device = batch["task"], output.logits.device
        # owner: task of each logit column
        columns = (
            to_device(self.dm.space.owner, device) == to_device(task, device)[:, None]
        )  # (B, C)
        text = self.templates.features
        found = anchor_losses(self.model, output, image, text, columns, class_mask)
        return losses | {name: weight * found[name] for name, weight in self.anchors.items()}

    def build_templates(
        self, options: CfgNode, space: TaskSpace, text: TextEncoder
    ) -> TemplatePrompter:
        return TemplatePrompter(space, text)

    def build_model(self) -> None:
        # the text anchor also compares classes of tasks without an image in the batch
        self.uses_templates = self.needs_all_classes = bool(self.anchors)
        super().build_model()
        options = self.cfg.TRAINER.MTCOOP
        if options.UPSTREAM_STEPS:
            class_context = options.CSC and not options.FREEZE_CLS_PROMPT
            steps = upstream_steps(class_context, self.precision)
            self.optim_steps_per_batch, self.sched_steps_per_epoch = steps
            self.steps_rule = (
                f"upstream: {steps[0]} optimizer steps per batch, {steps[1]} schedule steps per "
                "epoch"
            )

    def choose_classes(self, batch: dict, step: Step) -> torch.Tensor | None:
        """The classes in the batch and a random fraction of the others."""
        rate = self.cfg.TRAINER.MTCOOP.CLS_SAMPLE_RATE
        if not rate:
            return None
        seed = view_seed(self.cfg.SEED, step.epoch, f"classes of batch {step.batch_idx}")
        generator = torch.Generator().manual_seed(seed)
        return sample_classes(self.dm.space, batch["label"], batch["task"], rate, generator)

    def bound_tensors(self) -> dict[str, list[str]]:
        vectors = self.cfg.TRAINER.MTCOOP.TASK_VECTORS
        return super().bound_tensors() | ({"vectors": self.dm.space.tasknames} if vectors else {})

    def from_upstream(self, states: dict[str, dict[str, torch.Tensor]]) -> dict[str, torch.Tensor]:
        options = self.cfg.TRAINER.MTCOOP
        if options.TASK_VECTORS or options.DEPTH > 1 or options.IMAGE_PROMPTS:
            return super().from_upstream(states)
        prompter = self.model.prompter
        found = {
            "tasks.ctx": context_of(states, "task_prompt_learner"),
            "meta.proj": tensor_of(states, "prompt_gen", "proj"),
        }
        if not same_names(states["task_prompt_learner"], prompter.tasks):
            print("Its task names differ from these, and so will the generated contexts")
        if prompter.classes is not None:
            found["classes.ctx"] = context_of(states, "class_prompt_learner", prompter.classes)
        return found

    def method_name(self) -> str:
        options = self.cfg.TRAINER.MTCOOP
        cls = ("CS" if options.CLASS_CSC else "CA") if options.CSC else "NA"
        name = f"SoftCPT-{cls}{'TS' if options.TASK_CSC else 'TA'}"
        if options.TASK_VECTORS:
            name = f"SoftCPT* ({cls})" if options.CSC else "SoftCPT*"
        own = [f"depth {options.DEPTH}"] if options.DEPTH > 1 else []
        own += ["images"] if options.IMAGE_PROMPTS else []
        own += [f"rank {options.RANK}"] if own and options.RANK else []
        return ", ".join([name, *own, *(["anchors"] if self.anchors else [])])


def upstream_steps(class_context: bool, precision: str) -> tuple[int, int]:
    """Optimizer steps per batch and schedule steps per epoch of the released code.

    The released code registers one optimizer and one schedule under three names (prompt_learner,
    task_prompt_learner, prompt_gen; with a learned class context also class_prompt_learner) and
    steps them once per name; under amp the loss scaler steps the optimizer only once.
    """
    names = 4 if class_context else 3
    return (1 if precision == "amp" else names), names
