"""Vocabulary words nearest to learned contexts, and similarities between contexts of tasks."""

from __future__ import annotations

from collections.abc import Iterator

import torch
import torch.nn.functional as F

from clip import TextTower


def words_of(task: str, trainer, top: int) -> Iterator[tuple[str, int, int, str, float]]:
    """Context, token, rank, word and distance, for every learned and generated context."""
    text = trainer.clip.text_tower
    for name, contexts in contexts_of(task, trainer):
        distances = nearest_words(contexts, text, top)
        for token, found in enumerate(distances):
            for rank, (word, distance) in enumerate(found, start=1):
                yield name, token, rank, word, round(distance, 4)


def contexts_of(task: str, trainer) -> Iterator[tuple[str, torch.Tensor]]:
    """Names and tokens (m, d) of the contexts that a trainer learned or generates."""
    prompter, space, bound = trainer.model.prompter, trainer.dm.space, trainer.bound_tensors()
    owners = {len(space.tasks): space.tasknames, space.num_classes: space.classnames}
    prefix = f"{task}: " if task else ""
    for name, parameter in prompter.named_parameters():
        if name.split(".")[-1] == "ctx" and parameter.dim() in (2, 3):
            part = name.removesuffix(".ctx").removesuffix("ctx").strip(".") or "context"
            groups = parameter.detach()[None] if parameter.dim() == 2 else parameter.detach()
            numbers = [str(i) for i in range(len(groups))]
            labels = owners.get(len(groups), numbers) if name in bound else numbers
            for label, tokens in zip(labels, groups, strict=True):
                yield f"{prefix}{part}{f' of {label}' if len(groups) > 1 else ''}", tokens
    generated = task_contexts(trainer)
    if generated is not None:
        for name, tokens in zip(space.tasknames, generated, strict=True):
            yield f"generated for {name}", tokens


@torch.no_grad()
def task_contexts(trainer) -> torch.Tensor | None:
    """The contexts (T, m, d) of a meta network; those of classes are averaged by task.

    None for methods without a meta network.
    """
    model = trainer.model
    make = getattr(model.prompter, "generated_contexts", None)
    if make is None:
        return None
    contexts, space = make(model.text_tower), trainer.dm.space
    if len(contexts) == len(space.tasks) and len(contexts) != space.num_classes:
        return contexts
    owner = space.owner.to(contexts.device)
    return torch.stack([contexts[owner == t].mean(0) for t in range(len(space.tasks))])


def nearest_words(tokens: torch.Tensor, text: TextTower, top: int) -> list[list[tuple[str, float]]]:
    """The ``top`` nearest vocabulary entries of each token (m, d), with their distances."""
    vocabulary = text.token_embedding.weight.detach().float()  # (V, d)
    exact = "donot_use_mm_for_euclid_dist"  # products would round small distances away
    distances = torch.cdist(tokens.float().to(vocabulary.device), vocabulary, compute_mode=exact)
    found = distances.topk(min(top, len(vocabulary)), largest=False)
    return [
        [
            (text.tokenizer.decode([i]).strip() or f"token {i}", d)
            for i, d in zip(ids, row, strict=True)
        ]
        for ids, row in zip(found.indices.tolist(), found.values.tolist(), strict=True)
    ]


def similarity(contexts: torch.Tensor) -> torch.Tensor:
    """Cosines (T, T) between contexts (T, m, d), each flattened to one vector."""
    flat = F.normalize(contexts.float().flatten(1), dim=1)
    return flat @ flat.T
