"""SSCD, loaded from files in the three published formats, equals ClassyVision's and torchvision's networks."""

from __future__ import annotations

from collections import OrderedDict
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.models import resnet50
from torchvision.transforms import v2

from stylesim.core.errors import ConfigError, WeightsError
from stylesim.encoders.baselines.sscd import GeM, sscd_preprocessing, sscd_rn50


class PublishedGeM(nn.Module):
    """`sscd/models/gem_pooling.py`, rewritten: reshape, clamp, cube, mean, cube root."""

    def forward(self, x: Tensor) -> Tensor:
        x = x.reshape(x.shape[0], x.shape[1], -1).clamp(min=1e-6)
        return (x * x * x).mean(dim=2) ** (1 / 3)


class Normalise(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x / x.norm(dim=1, keepdim=True)


def conv(d_in: int, d_out: int, kernel: int, stride: int = 1) -> nn.Conv2d:
    return nn.Conv2d(d_in, d_out, kernel, stride, kernel // 2, bias=False)


class Bottleneck(nn.Module):
    """ClassyVision's `BottleneckLayer`: the last batch norm is outside the convolutional block."""

    def __init__(self, d_in: int, d_out: int, stride: int) -> None:
        super().__init__()
        mid = d_out // 4
        self.convolutional_block = nn.Sequential(
            conv(d_in, mid, 1),
            nn.BatchNorm2d(mid),
            nn.ReLU(),
            conv(mid, mid, 3, stride),
            nn.BatchNorm2d(mid),
            nn.ReLU(),
            conv(mid, d_out, 1),
        )
        self.bn = nn.BatchNorm2d(d_out)
        shortcut = nn.Sequential(conv(d_in, d_out, 1, stride), nn.BatchNorm2d(d_out))
        self.downsample = shortcut if d_in != d_out else None

    def forward(self, x: Tensor) -> Tensor:
        residual = x if self.downsample is None else self.downsample(x)
        return torch.relu(self.bn(self.convolutional_block(x)) + residual)


class InitialBlock(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self._module = nn.Sequential(conv(3, 64, 7, 2), nn.BatchNorm2d(64), nn.ReLU(), nn.MaxPool2d(3, 2, 1))

    def forward(self, x: Tensor) -> Tensor:
        return self._module(x)


class ClassyTrunk(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.initial_block = InitialBlock()
        stages, width = [], 64
        for i, depth in enumerate((3, 4, 6, 3)):
            stage = OrderedDict()
            for j in range(depth):
                stage[f"block{i}-{j}"] = Bottleneck(width, 256 * 2**i, stride=2 if i and not j else 1)
                width = 256 * 2**i
            stages.append(nn.Sequential(stage))
        self.blocks = nn.Sequential(*stages)

    def forward(self, x: Tensor) -> Tensor:
        return self.blocks(self.initial_block(x))


class ClassySSCD(nn.Module):
    """The trained model (`CV_RESNET50`): trunk and embeddings."""

    def __init__(self) -> None:
        super().__init__()
        self.backbone = ClassyTrunk()
        self.embeddings = nn.Sequential(PublishedGeM(), nn.Linear(2048, 512), Normalise())

    def forward(self, x: Tensor) -> Tensor:
        return self.embeddings(self.backbone(x))


class TorchvisionSSCD(nn.Module):
    """The same with torchvision's names (`TV_RESNET50`)."""

    def __init__(self) -> None:
        super().__init__()
        self.backbone = resnet50(num_classes=512)
        self.backbone.avgpool = PublishedGeM()  # type: ignore[assignment]
        self.embeddings = Normalise()

    def forward(self, x: Tensor) -> Tensor:
        return self.embeddings(self.backbone(x))


def with_statistics(model: nn.Module) -> nn.Module:
    """Give each batch norm statistics of noise, because initial values would hide one that is not loaded."""
    torch.manual_seed(0)
    for norm in model.modules():
        if isinstance(norm, nn.BatchNorm2d):
            nn.init.uniform_(norm.weight, 0.5, 1.0)
            nn.init.normal_(norm.bias, std=0.1)
            norm.momentum = 1.0
    model.train()(torch.randn(4, 3, 64, 64))
    return model.eval().requires_grad_(False)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["torchscript", "torchscript of torchvision", "classy", "torchvision"])
def test_published_formats_give_the_published_descriptors(kind: str, tmp_path: Path):
    model = with_statistics(TorchvisionSSCD() if "torchvision" in kind else ClassySSCD())
    path = tmp_path / "sscd_disc_mixup.pt"
    if "torchscript" in kind:  # traced at 64 px, as the published training code does
        traced = torch.jit.trace(model, torch.randn(1, 3, 64, 64))
        torch.jit.save(traced, str(path))
    else:
        torch.save(model.state_dict(), path)
    encoder, images = sscd_rn50(weights=str(path), image_size=96), torch.randn(2, 3, 96, 96)
    descriptors = encoder(images)
    assert descriptors[0] @ descriptors[1] < 0.99  # otherwise equal descriptors would prove nothing
    torch.testing.assert_close(descriptors, model(images), atol=1e-4, rtol=0)
    assert encoder.dim == 512


def test_file_of_another_network_is_refused_with_the_keys_that_differ(tmp_path: Path):
    path, state = tmp_path / "imagenet.pth", resnet50(num_classes=10).state_dict()
    state["fc.extra"] = state.pop("bn1.bias")
    torch.save(state, path)
    with pytest.raises(WeightsError) as refusal:
        sscd_rn50(weights=str(path), image_size=64)
    for part in ("missing: bn1.bias", "unexpected: fc.extra", "of another shape: fc.weight [10, 2048] for [512, 2048]"):
        assert part in str(refusal.value)


def test_gem_is_between_the_average_and_the_maximum():
    maps = torch.rand(2, 5, 3, 4)
    pooled = GeM()(maps)
    assert (pooled > maps.mean(dim=(2, 3))).all()
    assert (pooled < maps.amax(dim=(2, 3))).all()
    torch.testing.assert_close(GeM()(torch.full((1, 1, 2, 2), 0.3)), torch.tensor([[0.3]]))
    torch.testing.assert_close(GeM()(-torch.ones(1, 1, 2, 2)), torch.tensor([[1e-6]]), atol=1e-9, rtol=0)
    torch.testing.assert_close(GeM()(torch.tensor([[[[1.0, 3.0]]]])), torch.tensor([[14 ** (1 / 3)]]))
    torch.testing.assert_close(GeM()(torch.full((1, 1, 2, 2), 100.0).half()), torch.full((1, 1), 100.0).half())


@pytest.mark.parametrize("size", [(301, 417), (640, 299), (288, 288), (97, 211)])
@pytest.mark.parametrize("preset", ["authors", "reference"])
def test_pixels_equal_torchvisions_transforms(preset: str, size: tuple[int, int]):
    from PIL import Image

    pixels = torch.randint(0, 256, (3, *size), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    image = Image.fromarray(pixels.permute(1, 2, 0).numpy())
    if preset == "authors":  # the centre crop of what their Resize(288) returns
        steps = [v2.Resize(288), v2.CenterCrop(288), v2.PILToTensor(), v2.ToDtype(torch.float32, scale=True)]
        steps.append(v2.Normalize((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
    else:
        steps = [v2.Resize(256), v2.CenterCrop(224), v2.PILToTensor(), v2.ToDtype(torch.float32, scale=True)]
        steps.append(v2.Normalize([0.5], [0.5]))
    prepare = sscd_preprocessing(preset)
    torch.testing.assert_close(prepare.normalise(prepare(image)), v2.Compose(steps)(image), atol=1e-6, rtol=0)


def test_descriptors_are_normalised_once():
    encoder = sscd_rn50(weights="random", preset="reference", image_size=64)
    images = torch.randn(2, 3, 64, 64)
    torch.testing.assert_close(encoder(images), F.normalize(encoder.network(images), dim=1))
    with pytest.raises(ConfigError, match="crops 224 px, not the 288 px of preset=authors: add image_size=224"):
        sscd_preprocessing("reference", 288)
    with pytest.raises(ConfigError, match="preset must be one of"):
        sscd_preprocessing("best")
