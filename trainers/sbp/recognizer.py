"""The recogniser of SBP's Kinetics experiments: Video Swin and a pooled classifier."""

from __future__ import annotations

from torch import Tensor, nn

from trainers.backbones.heads import PooledHead
from trainers.backbones.video_swin import VideoSwin


class SwinRecognizer(nn.Module):
    """Clips (B, 3, T, H, W) to logits (B, classes)."""

    def __init__(self, backbone: VideoSwin, num_classes: int, *, dropout: float = 0.5) -> None:
        super().__init__()
        self.backbone = backbone
        self.head = PooledHead(backbone.num_features, num_classes, dropout=dropout)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.backbone(x))
