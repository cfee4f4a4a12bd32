"""SoftCPT's meta networks, which map text features to the context of a prompt."""

from __future__ import annotations

import torch
from torch import nn

from dassl.utils import UserError, unknown_name

from .prompt_learner import INIT_STD


class MetaNet(nn.Module):
    """Maps task features (n, e) and, if used, class features (n, e) to contexts (n, m, d).

    By default a linear map without bias; subclasses override how the features are joined
    (:meth:`join`), or the map (:meth:`build` and :meth:`forward`).

    Args:
        feature_dim: e.
        n_ctx: m.
        ctx_dim: d.
        with_classes: whether there are class features.
        ratio: input width / hidden width of networks with a bottleneck.
    """

    needs_classes = False

    def __init__(self, feature_dim: int, n_ctx: int, ctx_dim: int, with_classes: bool, ratio: int):
        super().__init__()
        if self.needs_classes and not with_classes:
            kind = next(k for k, cls in META_NETS.items() if cls is type(self))
            raise UserError(
                f"PG_TYPE {kind} needs class features: set TRAINER.MTCOOP.CSC True, or choose lin"
            )
        if n_ctx < 1:
            raise UserError(f"N_CTX of the generated context must be at least 1; got {n_ctx}")
        self.n_ctx, self.ctx_dim = n_ctx, ctx_dim
        self.build(feature_dim, with_classes, ratio)

    def build(self, feature_dim: int, with_classes: bool, ratio: int) -> None:
        """Create the weights."""
        width = self.joined_width(feature_dim, with_classes)
        self.proj = nn.Parameter(INIT_STD * torch.randn(width, self.n_ctx * self.ctx_dim))

    def joined_width(self, feature_dim: int, with_classes: bool) -> int:
        """Width of the output of :meth:`join`."""
        return feature_dim

    def join(self, task: torch.Tensor, cls: torch.Tensor | None) -> torch.Tensor:
        """One input vector per context, from task and class features (n, e)."""
        return task

    def forward(self, task: torch.Tensor, cls: torch.Tensor | None = None) -> torch.Tensor:
        """Contexts (n, m, d)."""
        return (self.join(task, cls) @ self.proj).unflatten(-1, (self.n_ctx, self.ctx_dim))


class Linear(MetaNet):
    """A linear map without bias of the concatenated class and task features, as released."""

    def joined_width(self, feature_dim, with_classes):
        return 2 * feature_dim if with_classes else feature_dim

    def join(self, task, cls):
        return task if cls is None else torch.cat([cls, task], dim=-1)  # class first, as released


class LinearMean(MetaNet):
    """A linear map of the mean of class and task features."""

    needs_classes = True

    def join(self, task, cls):
        return (cls + task) / 2


class LinearClass(MetaNet):
    """A linear map of the class feature alone."""

    needs_classes = True

    def join(self, task, cls):
        return cls


class MLP(Linear):
    """Two linear layers with a bottleneck and a ReLU.

    This project's own design; the released code only mentions such a network.
    """

    def build(self, feature_dim, with_classes, ratio):
        width = self.joined_width(feature_dim, with_classes)
        if not 1 <= ratio <= width:
            raise UserError(f"PG_RATIO must be between 1 and the input width {width}; got {ratio}")
        out = self.n_ctx * self.ctx_dim
        self.net = nn.Sequential(
            nn.Linear(width, width // ratio), nn.ReLU(), nn.Linear(width // ratio, out)
        )
        for layer in (self.net[0], self.net[2]):
            nn.init.normal_(layer.weight, std=INIT_STD)
            nn.init.zeros_(layer.bias)

    def forward(self, task, cls=None):
        return self.net(self.join(task, cls)).unflatten(-1, (self.n_ctx, self.ctx_dim))


class Transformer(MetaNet):
    """One transformer layer in which m learned queries read the task (and class) features.

    This project's own design; the released code only mentions such a network.
    """

    def build(self, feature_dim, with_classes, ratio):
        d = self.ctx_dim
        self.inputs = nn.Linear(feature_dim, d, bias=False)
        self.kinds = nn.Parameter(INIT_STD * torch.randn(2 if with_classes else 1, d))
        self.queries = nn.Parameter(INIT_STD * torch.randn(self.n_ctx, d))
        self.layer = nn.TransformerEncoderLayer(
            d, max(1, d // 64), 2 * d, dropout=0.0, batch_first=True, norm_first=True
        )
        self.out = nn.Linear(d, d, bias=False)
        nn.init.normal_(self.inputs.weight, std=feature_dim**-0.5)
        nn.init.normal_(self.out.weight, std=INIT_STD * d**-0.5)

    def forward(self, task, cls=None):
        features = [task] if cls is None else [cls, task]
        inputs = self.inputs(torch.stack(features, dim=1)) + self.kinds  # (n, 1 or 2, d)
        x = torch.cat([inputs, self.queries.expand(len(task), -1, -1)], dim=1)
        return self.out(self.layer(x)[:, len(features) :])  # (n, m, d)


META_NETS = {
    "lin": Linear,
    "linmean": LinearMean,
    "lincls": LinearClass,
    "mlp": MLP,
    "transformer": Transformer,
}


def build_meta_net(kind: str, **sizes) -> MetaNet:
    """The meta network that ``PG_TYPE`` names; ``sizes`` are :class:`MetaNet`'s arguments."""
    if kind not in META_NETS:
        raise unknown_name("PG_TYPE", kind, META_NETS)
    return META_NETS[kind](**sizes)
