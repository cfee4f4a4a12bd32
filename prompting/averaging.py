"""Averages of learned weights over the epochs of a training."""

from __future__ import annotations

import math

import torch
from torch import nn


class GaussianAverage:
    """The average over epochs 1 ... E, weighted by a Gaussian around an epoch.

    theta = sum_e g_e theta_e, g_e proportional to exp(-(e - mean)^2 / (2 std^2)), sum of g 1.
    Source: https://arxiv.org/abs/2307.06948, section 3.3. The sum is kept in fp32.

    Args:
        epochs: E.
        std: 0 takes the weights of the last epoch instead.

    Attributes:
        state: the weighted sum so far, by name; what a resumed training needs.
    """

    def __init__(self, epochs: int, mean: float, std: float):
        self.epochs, self.state = epochs, dict[str, torch.Tensor]()
        self.weights: list[float] = []
        if std:
            powers = [-((e - mean) ** 2) / (2 * std**2) for e in range(1, epochs + 1)]
            top = max(powers, default=0.0)  # a mean beyond the epochs must not divide zero by zero
            raw = [math.exp(power - top) for power in powers]
            self.weights = [weight / sum(raw) for weight in raw]

    @torch.no_grad()
    def update(self, module: nn.Module, epoch: int) -> None:
        """Add the weights of ``epoch`` (from 0); after the last, the module takes the average."""
        if not self.weights:
            return
        for name, value in module.state_dict().items():
            term = self.weights[epoch] * value.float()
            if name in self.state:  # on the CPU after a training was resumed
                term = term + self.state[name].to(term.device)
            self.state[name] = term
        if epoch + 1 == self.epochs:
            module.load_state_dict(self.state)
