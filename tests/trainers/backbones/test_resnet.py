"""ResNets and BN-Inception: sizes, what is frozen, where weights come from. Values are held by the reference vectors."""

from __future__ import annotations

import re

import pytest
import torch
from torch import nn

from trainers.backbones.bn_inception import BNInception
from trainers.backbones.resnet import DEPTHS, ResNet, load_resnet


def parameters(model: nn.Module) -> int:
    return sum(each.numel() for each in model.parameters())


# torchvision's published counts, less the classifier (512 or 2048 times 1000, plus 1000).
@pytest.mark.parametrize(
    ("depth", "count"),
    [
        (18, 11_689_512 - 513_000),
        (34, 21_797_672 - 513_000),
        (50, 25_557_032 - 2_049_000),
        (101, 44_549_160 - 2_049_000),
        (152, 60_192_808 - 2_049_000),
    ],
)
def test_every_depth_has_the_published_number_of_parameters(depth: int, count: int) -> None:
    with torch.device("meta"):
        model = ResNet(depth)
    assert parameters(model) == count
    assert model(torch.empty(2, 3, 65, 97, device="meta")).shape == (2, model.num_features, 3, 4)


def test_a_depth_that_does_not_exist_is_named() -> None:
    with pytest.raises(ValueError, match="depth 42; there are 18, 34, 50, 101, 152"):
        ResNet(42)


def test_frozen_stages_keep_statistics_and_get_no_gradient() -> None:
    model = ResNet(18, frozen_stages=2).train()
    before = {name: each.clone() for name, each in model.named_buffers()}
    model(torch.randn(2, 3, 32, 32)).sum().backward()
    trained = {name.split(".")[0] for name, each in model.named_parameters() if each.grad is not None}
    moved = {
        name.split(".")[0]
        for name, each in model.named_buffers()
        if name.endswith("running_mean") and not each.equal(before[name])
    }
    assert trained == moved == {"layer3", "layer4"}


def test_norm_eval_keeps_statistics_but_trains_scales() -> None:
    model = ResNet(18, norm_eval=True).train()
    before = model.conv1.bn.running_mean.clone()
    model(torch.randn(2, 3, 32, 32)).sum().backward()
    assert model.conv1.bn.running_mean.equal(before)
    assert model.conv1.bn.weight.grad is not None


def test_checkpointing_changes_no_gradient() -> None:
    gradients = []
    for checkpointing in (False, True):
        torch.manual_seed(0)
        model = ResNet(18, norm_eval=True, checkpointing=checkpointing).train()
        model(torch.randn(2, 3, 32, 32)).square().sum().backward()
        gradients.append(torch.cat([each.grad.flatten() for each in model.parameters()]))
    torch.testing.assert_close(*gradients)


def test_train_returns_the_model() -> None:
    model = ResNet(18)
    assert model.train() is model and model.eval() is model


@pytest.mark.parametrize("depth", [18, 50])
def test_torchvision_files_load_whole(depth: int) -> None:
    model = ResNet(depth)
    theirs = {}
    for name, each in model.state_dict().items():
        name = name.replace("downsample.conv.", "downsample.0.").replace("downsample.bn.", "downsample.1.")
        name = re.sub(r"conv(\d)\.conv\.", r"conv\1.", name)
        theirs[re.sub(r"conv(\d)\.bn\.", r"bn\1.", name)] = torch.ones_like(each)
    report = load_resnet(model, theirs | {"fc.weight": torch.ones(3, 3), "fc.bias": torch.ones(3)})
    assert report.complete
    assert all(each.eq(1).all() for each in model.state_dict().values())


def test_recogniser_files_load_without_their_head(tmp_path) -> None:
    saved, model = ResNet(18), ResNet(18)
    state = {f"backbone.{name}": each for name, each in saved.state_dict().items()}
    torch.save({"meta": {}, "state_dict": state | {"cls_head.fc_cls.weight": torch.ones(4, 512)}}, tmp_path / "tsn.pth")
    assert load_resnet(model, tmp_path / "tsn.pth").complete
    assert model.layer4[1].conv2.conv.weight.equal(saved.layer4[1].conv2.conv.weight)


def test_another_network_is_not_taken_in_silence() -> None:
    with pytest.raises(ValueError, match="nothing in the checkpoint fits"):
        load_resnet(ResNet(18), {"something.else": torch.ones(2)})
    report = load_resnet(ResNet(34), ResNet(18).state_dict())
    assert any(name.startswith("layer1.2.") for name in report.missing)


def test_bn_inception_takes_flow() -> None:
    with torch.device("meta"):
        model = BNInception(in_channels=10)
    assert model(torch.empty(1, 10, 96, 64, device="meta")).shape == (1, 1024, 3, 2)


def test_deep_networks_are_bottlenecks() -> None:
    assert [block.expansion for block, _ in DEPTHS.values()] == [1, 1, 4, 4, 4]
