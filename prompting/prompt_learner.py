"""Prompts with a learned or generated context, for task names and class names."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from clip import TextEncoder
from clip.text import PROMPTS_AT_ONCE, Prompts, index_rows
from dassl.config import CfgNode
from dassl.data import TaskSpace
from dassl.utils import UserError
from image_text import FreeText, QuestionSpace

from .prompter import Prompter
from .words import cut_texts, embed_words, tokenize_names

POSITIONS = ("end", "middle", "front")
INIT_STD = 0.02  # of contexts and of meta networks, as published


class PromptLearner(nn.Module):
    """Embeds ``[SOS] context name . [EOT]`` for a list of names, the context learned or given.

    The context is the only state. The tokens of the names are rebuilt from the names, so a
    checkpoint of a shared context loads for any set of classes. :meth:`forward` embeds only the
    names that it is called for. The position of the name among the context tokens is a permutation
    of tokens, so CoOp's three positions share one code path.

    Args:
        names: class or task names; underscores become spaces. Captions (:class:`FreeText`) that
            are too long are cut, and the log counts them.
        text: the frozen text tower; not stored.
        n_ctx: m, the number of context tokens; ``ctx_init`` overrides it.
        ctx_init: words that start the context, for example "a photo of a".
        group: (n,) index of each name's context among G; None: one context for all.
        learn: learn a context; if False, :meth:`forward` is given one.
        position: of the name among the context tokens: "end", "middle" or "front".
        inserts: whether other words will be inserted in front of every name.

    Raises:
        UserError: an unknown position, or a prompt longer than the tower's context.
    """

    start: torch.Tensor
    token: torch.Tensor

    def __init__(
        self,
        names: list[str],
        text: TextEncoder,
        n_ctx: int = 16,
        ctx_init: str = "",
        group: torch.Tensor | None = None,
        learn: bool = True,
        position: str = "end",
        inserts: bool = False,
    ):
        super().__init__()
        if position not in POSITIONS:
            raise UserError(
                f"a token position must be one of {', '.join(POSITIONS)}; got {position!r}"
            )
        are_captions = isinstance(names, FreeText)
        names = [name.replace("_", " ") for name in names]
        after_name = position == "front"
        words = embed_words(ctx_init, text, after_name) if ctx_init else None
        m = len(words) if ctx_init else n_ctx
        if m < 0:
            raise UserError(f"a context needs 0 tokens or more; got {m}")
        if are_captions:
            if group is not None:
                raise UserError(
                    "a context per text cannot be used for retrieval: the texts in testing are new"
                )
            names = cut_texts(names, text, m)
        self.n_ctx = m
        self.left = {"end": m, "middle": m // 2, "front": 0}[position]
        self._read_names(names, text, follow=inserts or self.left > 0)
        self.names = names
        self.per_name = group is not None and len(group.unique()) == len(names)
        groups = torch.zeros(len(names), dtype=torch.long) if group is None else group
        self.group = groups  # (n,), on the CPU, where the text tower plans its pass
        self.ctx = None
        if learn and m:
            initial = words if ctx_init else INIT_STD * torch.randn(m, text.width)  # (m, d)
            if group is not None:
                initial = self._per_group(initial, int(group.max()) + 1, ctx_init)
            self.ctx = nn.Parameter(initial)

    @staticmethod
    def _per_group(initial: torch.Tensor, groups: int, ctx_init: str) -> torch.Tensor:
        if ctx_init:
            return initial.repeat(groups, 1, 1)  # (G, m, d)
        return INIT_STD * torch.randn(groups, *initial.shape)

    def _read_names(self, names: list[str], text: TextEncoder, follow: bool) -> None:
        right = self.n_ctx - self.left  # context tokens right of the name
        lengths, to_end = tokenize_names(names, text, self.n_ctx, follow)
        first, pad = list(text.tokenizer.prefix_ids), text.tokenizer.pad_id
        length = max(map(len, to_end))
        ids = torch.tensor([first + words + [pad] * (length - len(words)) for words in to_end])
        ids, token = ids.unique(return_inverse=True)
        with torch.no_grad():
            table = text.embed(ids.to(text.device)).cpu()
        self.register_buffer("table", table, persistent=False)  # (v, d) of the v tokens in use
        start = table[token[:1, : len(first)]]
        self.register_buffer("start", start, persistent=False)  # (1, s, d) in front of all prompts
        rest = token[:, len(first) :]
        self.register_buffer("token", rest, persistent=False)  # (n, L) rows of table
        self.eot = torch.tensor([len(words) - 1 + right for words in to_end])  # (n,), on the CPU
        order = [_suffix_order(count, right, length) for count in lengths]
        self.register_buffer("order", torch.stack(order), persistent=False)  # (n, L + right)

    def embedded(self) -> torch.Tensor:
        """Embeddings (n, L, d) of every name, its full stop and EOT, padded after EOT."""
        return F.embedding(self.token, self.table)

    def show(self) -> list[str]:
        """The n prompts in words, with [m] for m context tokens."""
        right = self.n_ctx - self.left
        before = f"[{self.left}] " if self.left else ""
        after = f" [{right}]" if right else ""
        return [f"{before}{text}{after}." for text in self.names]

    def forward(
        self,
        ctx: torch.Tensor | None = None,
        group: torch.Tensor | None = None,
        class_mask: torch.Tensor | None = None,
        all_pairs: bool = False,
        inserted: torch.Tensor | None = None,
    ) -> Prompts:
        """The prompts of all names, or of those in ``class_mask``.

        Args:
            ctx: (m, d) or (G, m, d); None takes the learned one.
            group: (n,) index of each name's context; None: as at construction.
            class_mask: (n,) mask of the names, or their indices; best on the CPU, as ``group``:
                reading it from a GPU would synchronize.
            all_pairs: combine every name with every context: G * n prompts, context by context.
            inserted: (p, d) embedded words between the left part of the context and every name.
        """
        ctx = self.ctx if ctx is None else ctx
        d = self.table.shape[-1]
        if ctx is None:  # a context of no tokens
            ctx = self.table.new_empty(int(self.group.max()) + 1, 0, d)
        ctx = (ctx[None] if ctx.dim() == 2 else ctx).to(self.table.dtype)  # (G, m, d)
        group = self.group if group is None else group
        name, order, eot = self.token, self.order, self.eot
        if class_mask is not None:
            ids = mask_to_indices(class_mask)
            name, order, eot, group = (index_rows(x, ids) for x in (name, order, eot, group))
        left, right = ctx[:, : self.left], ctx[:, self.left :]
        rows = None
        if all_pairs:
            group = torch.arange(len(ctx)).repeat_interleave(len(name))
            rows = torch.arange(len(name)).repeat(len(ctx))
            if right.shape[1]:  # the suffix holds context tokens, so that every pair has its own
                name, order, eot = (index_rows(x, rows) for x in (name, order, eot))
                rows = None
        suffix = F.embedding(name, self.table)  # (n, L, d)
        if right.shape[1]:
            suffix = torch.cat([suffix, index_rows(right, group)], dim=1)  # (n, L + right, d)
            suffix = suffix.gather(1, order[..., None].expand_as(suffix))
        parts = [self.start.expand(len(ctx), -1, -1), left]
        if inserted is not None:
            parts.append(inserted.to(left.dtype).expand(len(ctx), -1, -1))
        prefix = torch.cat(parts, dim=1)  # (G, s + left + p, d)
        return Prompts(prefix, suffix, group, eot, rows, start=self.start.shape[1])


def show_prompts(prompter: nn.Module) -> list[str]:
    """The prompts of a prompter in words: its own ``show()``, or those of all its learners."""
    if hasattr(prompter, "show"):
        return prompter.show()
    lines = []
    for name, part in prompter.named_modules():
        if isinstance(part, PromptLearner):
            lines += [f"{name}:", *(f"  {line}" for line in part.show())]
    return lines


def contexts_per_name(prompter: nn.Module) -> dict[str, list[str]]:
    """The tensors of a prompter that hold a learned context per name, which fits no other name."""
    return {
        f"{place}.ctx".lstrip("."): part.names
        for place, part in prompter.named_modules()
        if isinstance(part, PromptLearner) and part.per_name and part.ctx is not None
    }


class ContextPrompter(Prompter):
    """One learned context for all class names, or one per class: CoOp's prompts (equations 2, 3).

    ``options`` has CoOp's keys: N_CTX, CTX_INIT, CSC, CLASS_TOKEN_POSITION.

    Args:
        group: (C,) index of each class's context, instead of CSC; None: as CSC says.
    """

    def __init__(
        self,
        options: CfgNode,
        space: TaskSpace,
        text: TextEncoder,
        group: torch.Tensor | None = None,
    ):
        super().__init__()
        if group is None and options.CSC:
            group = torch.arange(space.num_classes)
        self.prompts = PromptLearner(
            space.classnames,
            text,
            n_ctx=options.N_CTX,
            ctx_init=options.CTX_INIT,
            group=group,
            position=options.CLASS_TOKEN_POSITION,
            inserts=isinstance(space, QuestionSpace),
        )

    def forward(
        self,
        text: TextEncoder,
        image_features: torch.Tensor,
        class_mask: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Text features (C, e)."""
        chunks = chunk_names(self.prompts, class_mask)
        features = [text.encode(self.make_prompts(chunk)) for chunk in chunks]
        rows = torch.cat(features) if len(features) > 1 else features[0]
        return scatter_rows(rows, class_mask)

    def make_prompts(self, class_mask: torch.Tensor | None) -> Prompts:
        """The prompts of the classes in ``class_mask`` (C,), a mask or indices."""
        return self.prompts(class_mask=class_mask)


def chunk_names(
    prompts: PromptLearner, class_mask: torch.Tensor | None, prompts_per_name: int = 1
) -> tuple[torch.Tensor | None, ...]:
    """The names in ``class_mask`` (n,), in chunks of at most PROMPTS_AT_ONCE prompts.

    Returns:
        For each chunk, a ``class_mask`` of :meth:`PromptLearner.forward`.
    """
    most = max(PROMPTS_AT_ONCE // prompts_per_name, 1)
    ids = torch.arange(len(prompts.names)) if class_mask is None else mask_to_indices(class_mask)
    return (class_mask,) if len(ids) <= most else ids.split(most)


def mask_to_indices(class_mask: torch.Tensor) -> torch.Tensor:
    """Indices (k,), on the CPU, of the names in a mask (n,); indices are returned as they are."""
    class_mask = class_mask.cpu()
    return class_mask.nonzero()[:, 0] if class_mask.dtype == torch.bool else class_mask


def need_context(key: str, n_ctx: int, ctx_init: str = "") -> None:
    """Refuse a context without tokens, which would leave a method nothing to learn."""
    if n_ctx < 1 and not ctx_init:
        raise UserError(
            f"TRAINER.{key}.N_CTX must be at least 1, as only the context is learned; got {n_ctx}"
        )


def _suffix_order(name_len: int, right: int, length: int) -> torch.Tensor:
    """Order of a suffix: the name, the context tokens right of it, the full stop and EOT.

    Positions below ``length`` are those of name, full stop and EOT; the context follows.
    """
    order = torch.arange(length + right)
    return torch.cat([order[:name_len], order[length:], order[name_len:length]])


def scatter_rows(rows: torch.Tensor, class_mask: torch.Tensor | None) -> torch.Tensor:
    """(..., C, e) with the rows (..., k, e) of the k classes in the mask, and zeros elsewhere."""
    if class_mask is None:
        return rows
    out = rows.new_zeros(*rows.shape[:-2], len(class_mask), rows.shape[-1])
    ids = mask_to_indices(class_mask).to(rows.device, non_blocking=True)
    return out.index_copy(-2, ids, rows)
