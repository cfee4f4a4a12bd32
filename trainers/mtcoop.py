"""SoftCPT: soft context sharing for prompt tuning. https://arxiv.org/abs/2208.13474

Journal version: Multi-task prompt tuning with soft context sharing for vision-language models,
Neurocomputing 603 (2024) 128290.
"""

from __future__ import annotations

import torch
from torch import nn

from clip import TextEncoder
from clip.text import index_rows
from dassl.config import CfgNode, Key
from dassl.data import TaskSpace, view_seed
from dassl.engine import TRAINER_REGISTRY, Step
from dassl.utils import UserError
from prompting.equal_names import refuse_equal_tasks
from prompting.meta_net import META_NETS, build_meta_net
from prompting.precision import PRECISIONS
from prompting.prompt_learner import INIT_STD, POSITIONS, PromptLearner, scatter_rows
from prompting.prompter import Prompter
from prompting.upstream import context_of, same_names, tensor_of

from ._base import PromptTrainer


class SoftPrompter(Prompter):
    """Text features of the classes of all tasks, in contexts generated from the task names.

    With g the frozen text tower, U the task context, V the class context, W the meta network:

        r_t   = g([SOS] U task_t . [EOT]), or learned           (e,)  task feature
        s_tc  = g([SOS] V class_tc . [EOT])                     (e,)  class feature, only with CSC
        S     = W(r_t), one context per task, or W(s_tc, r_t), one per class
        w_tc  = g([SOS] S class_tc . [EOT])                     (e,)  text feature of class c
    """

    def __init__(self, options, space, text):
        super().__init__()
        self.frozen_classes = bool(options.FREEZE_CLS_PROMPT)
        tasks = [task.name for task in space.tasks]
        self.tasks = self.vectors = None
        if options.TASK_VECTORS:
            self.vectors = nn.Parameter(INIT_STD * torch.randn(len(tasks), text.out_dim))
        else:
            per_task = torch.arange(len(tasks)) if options.TASK_CSC else None
            self.tasks = _learner(tasks, text, options, "TASK_", per_task)
        self.classes = None
        if options.CSC:
            per_class = torch.arange(space.num_classes) if options.CLASS_CSC else None
            self.classes = _learner(space.classnames, text, options, "CLASS_", per_class)
            if self.frozen_classes:
                self.classes.requires_grad_(False)
        self.names = _learner(space.classnames, text, options, "", None, learn=False)
        self.meta = build_meta_net(
            options.PG_TYPE,
            feature_dim=text.out_dim,
            n_ctx=self.names.n_ctx,
            ctx_dim=text.width,
            with_classes=options.CSC,
            ratio=options.PG_RATIO,
        )
        self._class_features: tuple | None = None
        self.n_tasks, self.owner = len(tasks), space.owner  # (C,) task of each class

    def tasks_of(self, class_mask: torch.Tensor | None) -> torch.Tensor:
        """Mask (T,) of the tasks of the classes in ``class_mask``."""
        owner = self.owner if class_mask is None else self.owner[class_mask]
        return torch.zeros(self.n_tasks, dtype=torch.bool).index_fill(0, owner, True)

    def contexts(self, text, class_mask=None):
        """The generated contexts of the classes in ``class_mask``.

        One per task (T, m, d), or with class features one per class (C, m, d).
        """
        tasks = self.tasks_of(class_mask)
        if self.vectors is None:
            task = text.encode(self.tasks(class_mask=tasks)).float()  # (T, e)
        else:
            task = index_rows(self.vectors, tasks.nonzero()[:, 0])
        if self.classes is None:
            return self.meta(task)
        owner = self.owner if class_mask is None else self.owner[class_mask]
        return self.meta(
            index_rows(task, ranks(tasks)[owner]), self.class_features(text, class_mask)
        )

    def class_features(self, text, class_mask=None):
        """Features (k, e) of the classes in ``class_mask``; computed once if not learned."""
        if not self.frozen_classes:
            return text.encode(self.classes(class_mask=class_mask)).float()
        ctx = self.classes.ctx
        state = None if ctx is None else (ctx._version, ctx.device)  # loading writes in place
        if self._class_features is None or self._class_features[0] != state:
            with torch.no_grad():
                self._class_features = state, text.encode(self.classes()).float()
        features = self._class_features[1]
        return features if class_mask is None else index_rows(features, class_mask.nonzero()[:, 0])

    def forward(
        self,
        text: TextEncoder,
        image_features: torch.Tensor,
        class_mask: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Text features (C, e); zero outside ``class_mask``."""
        class_mask = None if class_mask is None else class_mask.cpu()
        ctx = self.contexts(text, class_mask)
        if self.classes is None:
            group = ranks(self.tasks_of(class_mask))[self.owner]
        else:
            group = torch.arange(len(self.owner)) if class_mask is None else ranks(class_mask)
        return scatter_rows(text.encode(self.names(ctx, group, class_mask)), class_mask)


def ranks(mask: torch.Tensor) -> torch.Tensor:
    """Rank of each marked entry of a mask among the marked ones."""
    return mask.cumsum(0) - 1


def _learner(names, text, options, level, group, learn=True):
    """The prompts of one level: "TASK_", "CLASS_", or "" for the final prompts."""
    return PromptLearner(
        names,
        text,
        n_ctx=options[f"{level}N_CTX"],
        ctx_init=options[f"{level}CTX_INIT"],
        group=group,
        learn=learn,
        position=options[f"{level}TOKEN_POSITION"],
    )


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
        CSC=False,  # generate the context from the class name too: one context per class
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
        PG_RATIO=Key(1, least=1),  # bottleneck of mlp: hidden width = input width // PG_RATIO
        # fraction of the classes outside the batch that a step scores; 0: all classes
        CLS_SAMPLE_RATE=Key(0.0, least=0, most=1),
        FREEZE_CLS_PROMPT=Key(0, choices=(0, 1)),  # 1: the class context is not learned
        UPSTREAM_STEPS=False,  # as many optimizer and schedule steps as the released code
    )
    suite = "joint"

    def check_cfg(self, cfg: CfgNode) -> None:
        options = cfg.TRAINER.MTCOOP
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

    def build_prompter(self, options: CfgNode, space: TaskSpace, text: TextEncoder) -> Prompter:
        if not options.TASK_VECTORS:
            refuse_equal_tasks(space, text)
        return SoftPrompter(options, space, text)

    def build_model(self) -> None:
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
        return self.dm.space.sample_classes(batch["label"], batch["task"], rate, generator)

    def class_bound_names(self) -> list[str]:
        vectors = self.cfg.TRAINER.MTCOOP.TASK_VECTORS
        return [*super().class_bound_names(), *(self.dm.space.tasknames if vectors else [])]

    def from_upstream(self, states: dict[str, dict[str, torch.Tensor]]) -> dict[str, torch.Tensor]:
        if self.cfg.TRAINER.MTCOOP.TASK_VECTORS:
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
        if options.TASK_VECTORS:
            return f"SoftCPT* ({cls})" if options.CSC else "SoftCPT*"
        return f"SoftCPT-{cls}{'TS' if options.TASK_CSC else 'TA'}"


def upstream_steps(class_context: bool, precision: str) -> tuple[int, int]:
    """Optimizer steps per batch and schedule steps per epoch of the released code.

    The released code registers one optimizer and one schedule under three names (prompt_learner,
    task_prompt_learner, prompt_gen; with a learned class context also class_prompt_learner) and
    steps them once per name; under amp the loss scaler steps the optimizer only once.
    """
    names = 4 if class_context else 3
    return (1 if precision == "amp" else names), names
