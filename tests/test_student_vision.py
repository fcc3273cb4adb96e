"""The eyes: any backbone without normalisation layers, folded exactly, calibrated once, able to learn."""

import functools
import math

import pytest
import torch
from torch import Tensor, nn

from student.spec import StudentSpec
from student.vision import Vision, build_backbone, fold_batch_norm

SPEC = StudentSpec(crop_px=32, backbone="mobilenetv4_conv_small_035", d_model=16, heads=2, visual_channels=4)


@functools.cache
def pictures() -> Tensor:
    """Discs of many places, sizes and colours, [96, 32, 32, 3]: pictures with structure, unlike noise."""
    maker = torch.Generator().manual_seed(0)
    ys, xs = torch.meshgrid(torch.arange(32.0), torch.arange(32.0), indexing="ij")
    centre, radius = 6 + 20 * torch.rand(96, 2, generator=maker), 3 + 6 * torch.rand(96, generator=maker)
    inside = (ys - centre[:, 0, None, None]) ** 2 + (xs - centre[:, 1, None, None]) ** 2 < radius[:, None, None] ** 2
    colours = 255 * torch.rand(2, 96, 1, 1, 3, generator=maker)
    return torch.where(inside[..., None], colours[0], colours[1]).to(torch.uint8)


@pytest.mark.parametrize("name", ["mobilenetv4_conv_small_035", "test_resnet", "mobilenetv3_small_050"])
def test_folding_batch_norm_changes_nothing_in_evaluation_mode(name: str) -> None:
    torch.manual_seed(0)
    backbone, channels = build_backbone(name, 16)
    for module in backbone.modules():
        if isinstance(module, nn.BatchNorm2d):
            for values, low, high in ((module.running_mean, -1, 1), (module.running_var, 0.5, 2)):
                assert values is not None
                values.uniform_(low, high)
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.uniform_(module.bias, -1, 1)
    x = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        want = backbone(x)[0]
        got = fold_batch_norm(backbone, x[:1])(x)[0]
    assert want.shape == (2, channels, 2, 2)
    torch.testing.assert_close(got, want, atol=2e-5 * float(want.abs().max()), rtol=0)
    assert not any(isinstance(m, nn.BatchNorm2d) for m in backbone.modules())


def test_a_backbone_whose_norms_cannot_be_folded_is_refused_by_name() -> None:
    class NormFirst(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.norm, self.conv = nn.BatchNorm2d(3), nn.Conv2d(3, 4, 1)

        def forward(self, x: Tensor) -> Tensor:
            return self.conv(self.norm(x))

    with pytest.raises(ValueError, match="norm follows no convolution"):
        fold_batch_norm(NormFirst(), torch.zeros(1, 3, 8, 8))


def test_an_impossible_stride_is_answered_with_those_there_are() -> None:
    with pytest.raises(ValueError, match=r"strides \[2, 4, 8, 16, 32\], not at 64"):
        build_backbone("mobilenetv4_conv_small_035", 64)


def test_an_unknown_backbone_is_answered_with_near_ones() -> None:
    with pytest.raises(ValueError, match=r"no model 'mobilenetv4_tiny'; near: mobilenetv4_"):
        build_backbone("mobilenetv4_tiny", 16)


def test_a_backbone_built_for_one_size_is_refused_by_name() -> None:
    with pytest.raises(ValueError, match="vit_tiny_patch16_224 cannot take 64 px"):
        Vision(StudentSpec(backbone="vit_tiny_patch16_224"))


def test_calibration_gives_every_convolution_unit_outputs_and_no_batch_dependence() -> None:
    torch.manual_seed(0)
    eyes = Vision(SPEC)
    eyes.calibrate(pictures())
    seen: list[tuple[Tensor, Tensor]] = []

    def watch(_module: nn.Module, _inputs: object, y: Tensor) -> None:  # at once: a ReLU may overwrite it in place
        seen.append((y.mean(dim=(0, 2, 3)), y.std(dim=(0, 2, 3))))

    handles = [m.register_forward_hook(watch) for m in eyes.modules() if isinstance(m, nn.Conv2d)]
    with torch.no_grad():
        whole = eyes(pictures())
    for handle in handles:
        handle.remove()
    for mean, spread in seen:
        assert mean.abs().max() < 1e-3
        assert spread.max() < 1.01
        assert spread.median() > 0.99
    eyes.train()
    torch.testing.assert_close(eyes(pictures()[:5]), whole[:5], atol=1e-4, rtol=0)


def test_black_grey_and_white_lie_on_the_exact_int8_grid() -> None:
    eyes, got = Vision(SPEC), []
    eyes.backbone.register_forward_pre_hook(lambda _m, inputs: got.append(inputs[0]))
    eyes(torch.tensor([0, 128, 255], dtype=torch.uint8).reshape(3, 1, 1, 1).expand(3, 32, 32, 3))
    assert got[0].shape == (3, 3, 32, 32)
    assert got[0][:, 0, 0, 0].tolist() == [-1.0, 0.0, 127 / 128]


def test_a_calibrated_backbone_without_norms_learns_where_a_disc_lies() -> None:
    torch.manual_seed(0)
    eyes, read = Vision(SPEC), nn.Linear(16, 1)
    eyes.calibrate(pictures())
    left = pictures()[:, :, :16].float().mean(dim=(1, 2, 3))
    right = pictures()[:, :, 16:].float().mean(dim=(1, 2, 3))
    target = ((left - right) / (left - right).std()).unsqueeze(1)
    optimiser = torch.optim.Adam([*eyes.parameters(), *read.parameters()], lr=2e-3)
    losses = []
    for _ in range(40):
        loss = (read(torch.relu(eyes(pictures()))) - target).square().mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(float(loss.detach()))
    assert all(map(math.isfinite, losses))
    assert losses[-1] < 0.2 * losses[0]
