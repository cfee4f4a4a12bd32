"""Metrics by loops over single images."""


def best_class(logits):
    """Index of the largest of a list of numbers."""
    return max(range(len(logits)), key=lambda c: logits[c])


def per_task_metrics(logits, labels, tasks, sizes, metrics):
    """One percentage per task (None without images): overall_acc or mean_acc.

    ``logits`` is a list of rows over all classes; ``sizes`` the number of classes of each task.
    """
    out = []
    for t, size in enumerate(sizes):
        start = sum(sizes[:t])
        outcomes = {}  # class -> list of right/wrong
        for row, label, task in zip(logits, labels, tasks, strict=True):
            if task == t:
                right = best_class(row[start : start + size]) == label
                outcomes.setdefault(label, []).append(right)
        if not outcomes:
            out.append(None)
        elif metrics[t] == "mean_acc":
            out.append(100 * sum(sum(o) / len(o) for o in outcomes.values()) / len(outcomes))
        else:
            flat = [right for o in outcomes.values() for right in o]
            out.append(100 * sum(flat) / len(flat))
    return out


def topk_accuracy(logits, labels, k):
    """Percentage of rows whose label is among the k largest."""
    hits = 0
    for row, label in zip(logits, labels, strict=True):
        ranked = sorted(range(len(row)), key=lambda c: -row[c])
        hits += label in ranked[:k]
    return 100 * hits / len(labels)
