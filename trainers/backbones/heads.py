"""Classifiers on top of feature maps."""

from __future__ import annotations

from torch import Tensor, nn


class PooledHead(nn.Module):
    """Features (B, F, D, H, W) to logits (B, classes): global average, dropout, one layer (N(0, `init_std`), bias 0).

    With `pool` off, features come pooled already: (B, F). Source: the I3D head of MMAction.
    """

    def __init__(
        self, num_features: int, num_classes: int, *, dropout: float = 0.5, init_std: float = 0.01, pool: bool = True
    ) -> None:
        super().__init__()
        self.pool = pool
        self.dropout = nn.Dropout(dropout)
        self.fc_cls = nn.Linear(num_features, num_classes)
        nn.init.normal_(self.fc_cls.weight, std=init_std)
        nn.init.zeros_(self.fc_cls.bias)

    def forward(self, x: Tensor) -> Tensor:
        if self.pool:
            x = x.flatten(2).mean(2)
        return self.fc_cls(self.dropout(x).flatten(1))
