"""Backbones for features: every kind can be made, takes its weights, and gives one vector."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from ingest.errors import ClipmillError
from trainers.lstr.backbones import backbone_names, build_backbone, takes_clips


@pytest.mark.parametrize(
    ("name", "size"), [("resnet18", 512), ("bn_inception", 1024), ("video_swin_tiny", 768), ("srtg_r3d_18", 64)]
)
def test_a_backbone_gives_a_vector_and_takes_weights(name: str, size: int, tmp_path: Path) -> None:
    first = build_backbone(name, None, width=8, seed=1)
    inputs = torch.randn(2, 3, 6, 64, 64) if takes_clips(name) else torch.randn(2, 3, 64, 64)
    expected = first(inputs)
    assert expected.shape == (2, size)
    assert not any(each.requires_grad for each in first.parameters())
    network = getattr(first, "backbone", first)
    torch.save({"models": {"model": network.state_dict()}}, tmp_path / "ours.pt")
    torch.save({"state_dict": {f"backbone.{k}": v for k, v in network.state_dict().items()}}, tmp_path / "theirs.pth")
    files = ["ours.pt"] if name.startswith("srtg") else ["ours.pt", "theirs.pth"]
    for file in files:
        other = build_backbone(name, tmp_path / file, width=8, seed=2)
        torch.testing.assert_close(other(inputs), expected)


def test_a_name_or_a_file_that_does_not_fit_is_said(tmp_path: Path) -> None:
    with pytest.raises(ClipmillError, match="resnet19"):
        build_backbone("resnet19", None)
    torch.save({"state_dict": {"weight": torch.zeros(1)}}, tmp_path / "other.pth")
    with pytest.raises(ClipmillError, match=r"other\.pth"):
        build_backbone("resnet18", tmp_path / "other.pth")
    assert "resnet50" in backbone_names() and not takes_clips("resnet50")
