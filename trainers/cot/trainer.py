"""CoT-PT: chain of thought prompt tuning. https://arxiv.org/abs/2304.07919

The formulas below are this project's interpretation of the paper's figure. docs/methods/cot.md
separates what comes from the paper, from a summary of it, and from this project.
"""

from __future__ import annotations

from collections import Counter

import torch
import torch.nn.functional as F
from torch import nn

from clip import TextEncoder
from clip.text import index_rows
from dassl.config import CfgNode, Key
from dassl.data import TaskSpace
from dassl.engine import TRAINER_REGISTRY
from dassl.utils import UserError
from image_text import ItemSpace, QuestionSpace
from prompting.image_conditional import encode_per_image, image_net
from prompting.precision import PRECISIONS
from prompting.prompt_learner import (
    INIT_STD,
    POSITIONS,
    PromptLearner,
    mask_to_indices,
    need_context,
)
from prompting.prompter import ModelOutput, Prompter
from prompting.stored_features import training_loader
from prompting.words import embed_words

from .._base import PromptTrainer
from .contrast import batch_contrast
from .image_words import ImageWords
from .step_texts import GENERATORS, check_generator, check_image_words, step_sources, step_texts

LINKS = ("convex", "additive")
AGGREGATORS = ("last", "linear", "attention")
# Options that a checkpoint must agree on, although the shapes of its tensors do not show them.
FORM = ("GENERATOR", "TEMPLATES", "TOP_CLASSES", "IMAGE_TEMPLATE", "AGGREGATOR", "ACCUMULATE")
FORM += ("CONTROLLER", "LINK", "LINK_RANGE", "LINK_WEIGHT", "CLASS_TOKEN_POSITION")


class Chain(nn.Module):
    """N contexts of m tokens, each computed from the one before it and from the image.

    With v the normalised image feature, ctx_i the learned context of step i, h_i its Meta-Net:

        b_i = a b_(i-1) + h_i(v), b_0 = 0              the shifts accumulate
        c_i = ctx_i + b_i                              one shift for all m tokens
        w = low + (high - low) sigmoid(controller(v))  a weight per link, i = 2 .. N
        P_1 = c_1
        P_i = (1 - w_i) P_(i-1) + w_i c_i              convex
        P_i = w_i P_(i-1) + c_i                        additive

    Args:
        options: the node TRAINER.COT.
        steps: N.
    """

    def __init__(self, options: CfgNode, steps: int, text: TextEncoder):
        super().__init__()
        self.carry, self.link = options.ACCUMULATE, options.LINK
        self.low, self.high = options.LINK_RANGE
        shape = steps, options.N_CTX, text.width
        start = INIT_STD * torch.randn(shape)
        if options.CTX_INIT:
            start = starting_words(options, text).repeat(steps, 1, 1)
        self.ctx = nn.Parameter(start)  # (N, m, d)
        nets = 1 if options.SHARED_META_NET else steps
        self.meta_nets = nn.ModuleList(
            image_net(text.out_dim, text.width, options.HIDDEN) for _ in range(nets)
        )
        self.controller = None
        if options.CONTROLLER and steps > 1:
            self.controller = image_net(text.out_dim, steps - 1, options.HIDDEN)
        self.constant = options.LINK_WEIGHT

    def weights(self, image):
        """Weights of the links (B, N - 1) for normalised image features (B, e)."""
        if self.controller is None:
            return image.new_full((len(image), len(self.ctx) - 1), self.constant)
        return self.low + (self.high - self.low) * self.controller(image).sigmoid()

    def forward(self, image):
        """Contexts (N, B, m, d) for normalised image features (B, e)."""
        weights = self.weights(image)
        shift, out = 0.0, []
        for i, ctx in enumerate(self.ctx):
            net = self.meta_nets[i % len(self.meta_nets)]
            shift = self.carry * shift + net(image)  # (B, d)
            context = ctx + shift[:, None]  # (B, m, d)
            if i:
                weight = weights[:, i - 1, None, None]
                context = context * weight if self.link == "convex" else context
                context = context + out[-1] * (1 - weight if self.link == "convex" else weight)
            out.append(context)
        return torch.stack(out)


def starting_words(options: CfgNode, text: TextEncoder) -> torch.Tensor:
    """Token embeddings (m, d) of CTX_INIT."""
    return embed_words(options.CTX_INIT, text, options.CLASS_TOKEN_POSITION == "front")


class ChainPrompter(Prompter):
    """Text features of the classes, from the words and the context of each step.

    z_i = g([SOS] P_i(x) words_i(class) . [EOT]), normalised. The aggregator returns z_N (last), the
    mean of all z_i (linear), or their sum weighted by softmax_i <q, z_i> (attention), with q
    learned per task, starting at the feature of the task's name. With TOP_CLASSES a sentence about
    the image x comes before words_i(class).
    """

    owner: torch.Tensor
    depends_on_image = True

    def __init__(self, options: CfgNode, space: TaskSpace, text: TextEncoder):
        super().__init__()
        self.chunk, self.aggregator = options.CHUNK, options.AGGREGATOR
        n_ctx = options.N_CTX
        if options.CTX_INIT:
            n_ctx = len(starting_words(options, text))
        words = step_texts(options, space, text, n_ctx)
        self.chain = Chain(options, len(words), text)
        used = words[-1:] if self.aggregator == "last" else words
        # steps with the same words share their embeddings
        learners: dict[tuple, PromptLearner] = {}
        inserts = isinstance(space, QuestionSpace) or options.TOP_CLASSES > 0
        how = {"position": options.CLASS_TOKEN_POSITION, "inserts": inserts}
        for step in used:
            if tuple(step) not in learners:
                learners[tuple(step)] = PromptLearner(step, text, n_ctx=n_ctx, learn=False, **how)
        parts = [learners[tuple(step)] for step in used]
        self.steps = nn.ModuleList(parts)
        self.sources = step_sources(options)
        self.image_words = None
        if options.TOP_CLASSES:
            longest = max(part.token.shape[1] for part in parts)  # tokens after the context
            tokens = parts[0].start.shape[1] + n_ctx + longest
            self.image_words = ImageWords(options, space, text, tokens, parts[0].left > 0)
        self.query = None
        if self.aggregator == "attention":
            with torch.no_grad():
                names = [f"{name.replace('_', ' ')}." for name in space.prompt_names]
                start = F.normalize(text.encode_text(names).float(), dim=-1)
            self.query = nn.Parameter(start.clone())  # (T, e)
            self.register_buffer("owner", space.owner, persistent=False)

    def forward(
        self,
        text: TextEncoder,
        image_features: torch.Tensor,
        class_mask: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Text features (B, k, e) of the masked classes, for normalised image features (B, e)."""
        contexts = self.chain(image_features)[-len(self.steps) :]
        sentences = self.image_words and self.image_words(text, image_features)
        features = [
            self._encode(text, words, context, class_mask, sentences).float()
            for words, context in zip(self.steps, contexts, strict=True)
        ]
        if self.aggregator == "last":
            return features[0]
        steps = F.normalize(torch.stack(features), dim=-1)  # (N, B, k, e)
        if self.query is None:
            return steps.mean(dim=0)
        owner = self.owner
        if class_mask is not None:
            owner = index_rows(owner, mask_to_indices(class_mask))
        query = self.query[owner]  # (k, e)
        with torch.autocast(steps.device.type, enabled=False):  # amp would round the products
            weights = torch.einsum("nbce,ce->nbc", steps, query).softmax(dim=0)
            return torch.einsum("nbc,nbce->bce", weights, steps)

    def _encode(self, text, words, contexts, class_mask, sentences):
        """Features (B, k, e) of a step; ``sentences``: the images and embedded words of each."""
        if sentences is None:
            return encode_per_image(text, words, contexts, class_mask, self.chunk)
        parts = [
            encode_per_image(text, words, contexts[images], class_mask, self.chunk, sentence)
            for images, sentence in sentences
        ]
        order = torch.cat([images for images, _ in sentences]).argsort()
        return torch.cat(parts)[order]

    def show(self):
        """Lines with the words of the encoded steps; steps with the same words are shown once."""
        lines, total = [], len(self.sources)
        first = total - len(self.steps)  # earlier steps are not encoded
        for words in dict.fromkeys(self.steps):
            same = [i for i, step in enumerate(self.steps, first) if step is words]
            which = ", ".join(str(i + 1) for i in same)
            kinds = dict.fromkeys(self.sources[i] for i in same)
            lines.append(f"step {which} of {total} says {' and '.join(kinds)}:")
            lines += [f"  {line}" for line in words.show()]
        return lines


@TRAINER_REGISTRY.register()
class CoT(PromptTrainer):
    """Chained contexts: prompts in steps, shifted and linked by the image; each task separately."""

    KEY = "COT"
    pairs = True
    free_options = ("CHUNK", "BATCH_CONTRAST")
    DEFAULTS = dict(
        PREC=Key("fp16", choices=PRECISIONS),
        # number of steps; with GENERATOR rule and neural, the number of TEMPLATES
        CHAIN_LENGTH=Key(3, least=1),
        N_CTX=Key(4, least=0),  # context tokens of each step, if CTX_INIT is empty
        CTX_INIT="",  # words that start the context of each step
        CLASS_TOKEN_POSITION=Key("end", choices=POSITIONS),
        # hidden width of Meta-Nets and controller; 0: width of the image feature // 16
        HIDDEN=Key(0, least=0),
        SHARED_META_NET=False,  # one Meta-Net for all steps
        ACCUMULATE=1.0,  # a: weight of the previous step's shift in a step's shift
        CONTROLLER=True,  # compute the weights of the links from the image
        LINK=Key("convex", choices=LINKS),  # how a step is combined with the one before it
        LINK_RANGE=Key((0.0, 1.0), least=0),  # lowest and highest weight by the controller
        LINK_WEIGHT=Key(0.5, least=0),  # weight of every link if CONTROLLER is False
        CHUNK=Key(8, least=0),  # images whose prompts are in memory at once; 0: all
        GENERATOR=Key("learned", choices=GENERATORS),  # origin of a step's words
        TEMPLATES=("a photo of {}", "{task}: {}", "own"),  # rule, neural: one per step
        LM="gpt2",  # neural: a folder or a name on the Hugging Face hub
        LM_TOKENS=Key(12, least=1),  # neural: maximum length of a continuation
        # rule, neural: number of zero-shot top classes in a sentence about the image; 0: none
        TOP_CLASSES=Key(0, least=0),
        # that sentence, in front of a step's words; neural: continued by the language model
        IMAGE_TEMPLATE="it may be {image}",
        AGGREGATOR=Key("last", choices=AGGREGATORS),  # how the features of the steps are combined
        BATCH_CONTRAST=Key(0.0, least=0),  # weight of the contrast between images of a batch
    )

    def check_cfg(self, cfg: CfgNode) -> None:
        options = cfg.TRAINER.COT
        check_generator(options)
        check_image_words(options)
        need_context(self.KEY, options.N_CTX, options.CTX_INIT)
        if options.BATCH_CONTRAST:
            self.refused_labels = {"multi_label": "BATCH_CONTRAST needs one class per image"}
            self.label_remedy = "set TRAINER.COT.BATCH_CONTRAST to 0"
        if len(options.LINK_RANGE) != 2:
            raise UserError(
                f"TRAINER.COT.LINK_RANGE takes two numbers, low and high; got {options.LINK_RANGE}"
            )
        low, high = options.LINK_RANGE
        limit = 1.0 if options.LINK == "convex" else float("inf")
        if low > high or max(high, options.LINK_WEIGHT) > limit:
            raise UserError(
                f"weights of {options.LINK} links must be between 0 and {limit}; got "
                f"TRAINER.COT.LINK_RANGE {options.LINK_RANGE} and LINK_WEIGHT {options.LINK_WEIGHT}"
            )

    def build_prompter(self, options: CfgNode, space: TaskSpace, text: TextEncoder) -> Prompter:
        if options.BATCH_CONTRAST and isinstance(space, ItemSpace):
            raise UserError(
                "TRAINER.COT.BATCH_CONTRAST is for classes (the loss of pairs contains a contrast "
                f"already): set it to 0 for {space.content}"
            )
        return ChainPrompter(options, space, text)

    def compute_loss(
        self, output: ModelOutput, batch: dict, class_mask: torch.Tensor | None = None
    ) -> dict[str, torch.Tensor]:
        losses = super().compute_loss(output, batch, class_mask)
        if weight := self.cfg.TRAINER.COT.BATCH_CONTRAST:
            logits = output.logits
            column = batch["label"] + self.dm.space.offsets.to(logits.device)[batch["task"]]
            losses["batch"] = weight * batch_contrast(logits, column, batch["task"])
        return losses

    def checkpoint_metadata(self):
        options = self.cfg.TRAINER.COT
        form = {f"TRAINER.COT.{key}": str(options[key]) for key in FORM}
        return {**super().checkpoint_metadata(), **form}

    def show_prompts(self):
        """The prompts in words, after the sentences about images."""
        words, counts = self.model.prompter.image_words, Counter()
        if words is None:
            return super().show_prompts()
        loaders = [self.test_loader]
        if self.dataset.train_x:
            loaders.insert(0, training_loader(self.encoder, self.dataset.train_x))
        for batch in (batch for loader in loaders if loader for batch in loader):
            image = F.normalize(self.image_features(batch)["global"].float(), dim=-1)
            counts.update(words.top_classes(image))
        words.write(list(counts), self.clip.text_tower)
        head = f"in front of the words of a step, for {counts.total()} training and test images:"
        return [head, *words.show(counts), *super().show_prompts()]

    def method_name(self) -> str:
        options = self.cfg.TRAINER.COT
        form = options.GENERATOR, options.AGGREGATOR
        return "CoT" if form == ("learned", "last") else f"CoT ({', '.join(form)})"
