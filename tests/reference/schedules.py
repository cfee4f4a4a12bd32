"""Learning rate curves by torch's own schedulers, one switch from warm-up to schedule."""

import torch


def schedule_of(optimizer, name, max_epoch, stepsize=(), gamma=0.1):
    """torch's scheduler for a name of ours."""
    schedulers = torch.optim.lr_scheduler
    if name == "cosine":
        return schedulers.CosineAnnealingLR(optimizer, max_epoch)
    if name == "multi_step":
        return schedulers.MultiStepLR(optimizer, list(stepsize), gamma)
    if name == "single_step":
        return schedulers.StepLR(optimizer, stepsize[0], gamma)
    return schedulers.ConstantLR(optimizer, 1.0)


def curve(lr, steps, name, max_epoch, warmup=0, warmup_lrs=(), recount=True, **options):
    """The rate at steps 0, 1, ..., steps - 1; ``warmup_lrs`` are those of the warm-up."""
    weight = torch.nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.SGD([weight], lr=lr)
    schedule = schedule_of(optimizer, name, max_epoch, **options)
    out = list(warmup_lrs[:warmup])
    if not recount:
        for _ in range(warmup):
            optimizer.step()
            schedule.step()
    while len(out) < steps:
        out.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    return out
