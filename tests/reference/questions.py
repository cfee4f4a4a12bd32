"""Questions on images, one at a time: the accuracy of an answer, and logits of answers."""

import torch

from tests.reference.prompts import features, logits


def vqa_accuracy(given, answers):
    """Leave out each person's answer in turn: how many of the others agree, three being enough."""
    total = 0
    for i in range(len(answers)):
        others = answers[:i] + answers[i + 1 :]
        total += min(sum(other == given for other in others) / 3, 1)
    return total / len(answers)


def scores(images, contexts, names, position, model, scale):
    """Logits (B, C): each image against the answers to its own question, in its own context.

    Args:
        images: (B, e). contexts: of each image, (m, d).
        names: of each image, (name, tail) token ids of its question with each of the C answers.
    """
    rows = []
    for image, ctx, answers in zip(images, contexts, names, strict=True):
        text = features(answers, [ctx] * len(answers), position, **model)
        rows.append(logits(image[None], text, scale)[0])
    return torch.stack(rows)


def loss(scores, targets):
    """Mean over the images of -log softmax of the right answer."""
    total = 0
    for row, target in zip(scores, targets, strict=True):
        total = total + torch.log(torch.exp(row).sum()) - row[target]
    return total / len(targets)
