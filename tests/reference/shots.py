"""CoOp's few-shot draw, as plainly as it can be said; Python's own generator and nothing else."""

import random


def coop_draw(train, val, shots, seed):
    """The drawn items of train and val; an item is [path, label, ...].

    One generator per dataset: the training images of each class, classes in the order in which
    they first appear, then the validation images in the same way, four per class at most.
    """
    rng = random.Random(seed)
    drawn = []
    for items, k in ((train, shots), (val, min(shots, 4))):
        chosen, done = [], []
        for item in items:
            if item[1] in done:
                continue
            done.append(item[1])
            same = [other for other in items if other[1] == item[1]]
            chosen.extend(rng.sample(same, k) if len(same) >= k else same)
        drawn.append(chosen)
    return drawn
