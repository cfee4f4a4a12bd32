"""Losses, measures and draws of ordinal and multi-label tasks, by plain loops."""

import math
import random

import torch


def single(row, label, label_smoothing=0.0):
    """Cross-entropy of one image; ``row`` is a list of the logits of its task's scored classes."""
    log_sum = torch.stack([z.exp() for z in row]).sum().log()
    loss = 0.0
    for c, z in enumerate(row):
        target = label_smoothing / len(row) + (1 - label_smoothing) * (c == label)
        loss = loss - target * (z - log_sum)
    return loss


def ordinal(row, label, weight, label_smoothing=0.0):
    """Cross-entropy and ``weight`` times the squared earth mover's distance."""
    total = torch.stack([z.exp() for z in row]).sum()
    distance = 0.0
    for k in range(len(row)):
        below = sum(row[c].exp() / total for c in range(k + 1))  # P(class <= k)
        distance = distance + (below - (1.0 if label <= k else 0.0)) ** 2
    return single(row, label, label_smoothing) + weight * distance


def binary(row, classes, positive_weight=1.0, bias=0.0, label_smoothing=0.0):
    """Sum over classes of the binary cross-entropy; ``classes`` are those that the image has."""
    loss = 0.0
    for c, z in enumerate(row):
        p = 1 / (1 + (-(z + bias)).exp())
        y = (1 - label_smoothing) * (c in classes) + label_smoothing / 2
        loss = loss - positive_weight * y * p.log() - (1 - y) * (1 - p).log()
    return loss


def asymmetric(row, classes, positive_weight=1.0, bias=0.0):
    """Equation 7 of arXiv:2009.14119: gamma+ = 0, gamma- = 4, m = 0.05."""
    loss = 0.0
    for c, z in enumerate(row):
        p = 1 / (1 + (-(z + bias)).exp())
        if c in classes:
            loss = loss - positive_weight * p.log()
        elif p > 0.05:
            loss = loss - (p - 0.05) ** 4 * (1 - (p - 0.05)).log()
    return loss


def average_precision(scores, positives):
    """Sum over images, best score first, of the precision there times the step in recall."""
    order = sorted(range(len(scores)), key=lambda i: -scores[i])
    hits = total = 0.0
    for rank, i in enumerate(order, start=1):
        if positives[i]:
            hits += 1
            total += hits / rank
    return total / sum(positives)


def set_measures(probabilities, sets, threshold):
    """mAP and F1 in percent, images whose whole set is right, classes that no image has."""
    num = len(probabilities[0])
    tested = [c for c in range(num) if any(c in classes for classes in sets)]
    precisions, f1 = [], []
    for c in tested:
        truth = [c in classes for classes in sets]
        scores = [row[c] for row in probabilities]
        precisions.append(average_precision(scores, truth))
        predicted = [p >= threshold for p in scores]
        both = sum(a and b for a, b in zip(truth, predicted, strict=True))
        f1.append(2 * both / (sum(truth) + sum(predicted)))
    exact = sum(
        {c for c, p in enumerate(row) if p >= threshold} == set(classes)
        for row, classes in zip(probabilities, sets, strict=True)
    )
    means = [100 * math.fsum(values) / len(values) for values in (precisions, f1)]
    return *means, exact, num - len(tested)


def draw_sets(images, shots, seed):
    """Names of the images drawn of a multi-label task; an image is (name, set of classes).

    From the rarest class to the most frequent: images with it until ``shots`` of the drawn have
    it; last, images without any class.
    """
    rng, drawn = random.Random(seed), []
    classes = sorted({c for _, own in images for c in own})
    classes.sort(key=lambda c: sum(c in own for _, own in images))
    for c in [*classes, None]:
        having = [name for name, own in images if (c in own if c is not None else not own)]
        there = [name for name in having if name in drawn]
        free = [name for name in having if name not in drawn]
        drawn += rng.sample(free, min(max(shots - len(there), 0), len(free)))
    return drawn
