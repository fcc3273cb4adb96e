"""Where INT8 begins and ends: what the plan quantises, that sums are covered, and that fixed scales clip and round."""

import copy

import pytest
import torch

from student import calibration
from student.model import Student
from student.quantization import ActivationQuantizer, QuantConv2d, QuantLinear, layout_of, quantize, weight_scale
from student.spec import StudentSpec

SPEC = StudentSpec(
    crop_px=32, backbone="mobilenetv4_conv_small_035", d_model=16, layers=1, heads=2, window_frames=4, ffn=16,
    conv_kernel=3, mel_bins=16, visual_channels=4, horizons=(0, 1),
)  # fmt: skip


def batch(frames: int = 3) -> calibration.Inputs:
    maker = torch.Generator().manual_seed(0)
    pictures = torch.randint(0, 256, (1, frames, 32, 32, 3), dtype=torch.uint8, generator=maker)
    return pictures, 0.1 * torch.randn(1, frames, 800, generator=maker), torch.ones(1, frames, 2)


@pytest.fixture(scope="module")
def parent() -> Student:
    torch.manual_seed(0)
    model = Student(SPEC).eval()
    model.vision.calibrate(batch(8)[0][0])
    return model


@pytest.fixture(scope="module")
def quantised(parent: Student) -> Student:
    model = Student(SPEC)
    model.load_state_dict(parent.state_dict())
    return calibration.prepare(model, [batch(), batch()])


def test_all_but_the_convolutions_over_time_run_in_int8(quantised: Student) -> None:
    layers = {n for n, m in quantised.named_modules() if isinstance(m, torch.nn.Conv2d | torch.nn.Linear)}
    assert layers == set(layout_of(quantised)) & layers
    assert "heads.out" in layers


def test_sums_of_residual_blocks_are_quantised_where_they_are_made(quantised: Student) -> None:
    layout = layout_of(quantised)
    modules = dict(quantised.named_modules())
    blocks = [n for n in layout if not isinstance(modules[n], torch.nn.Conv2d | torch.nn.Linear)]
    skips = [n for n, m in modules.items() if n.startswith("vision.backbone.blocks") and getattr(m, "has_skip", False)]
    assert blocks
    assert sorted(blocks) == sorted(skips)


def test_a_tensor_quantised_by_its_maker_is_not_quantised_again_by_its_user(quantised: Student) -> None:
    seen: list[torch.Tensor] = []
    doubly: list[str] = []

    def hook(name: str):
        def note(_module: torch.nn.Module, inputs: tuple[torch.Tensor, ...], output: torch.Tensor) -> None:
            if any(inputs[0] is made for made in seen):
                doubly.append(name)
            seen.append(output)

        return note

    handles = [
        m.register_forward_hook(hook(n)) for n, m in quantised.named_modules() if isinstance(m, ActivationQuantizer)
    ]
    with torch.no_grad():
        quantised(*batch(), quantised.init_state(1))
    for handle in handles:
        handle.remove()
    assert len(seen) > 20
    assert doubly == []


def test_every_activation_scale_covers_the_largest_value_seen(parent: Student, quantised: Student) -> None:
    scales = [m.scale for m in quantised.modules() if isinstance(m, ActivationQuantizer)]
    assert all(torch.isfinite(s) and s > 0 for s in scales)


def test_the_256_values_of_a_pixel_pass_the_quantised_input_unrounded(quantised: Student) -> None:
    pixels = (torch.arange(256.0) - 128) / 128
    assert torch.equal(quantised.vision.backbone.conv_stem.input_quantizer(pixels), pixels)


def test_int8_stays_close_to_its_float_parent(parent: Student, quantised: Student) -> None:
    with torch.no_grad():
        whole, _ = parent(*batch(), parent.init_state(1))
        small, _ = quantised(*batch(), quantised.init_state(1))
    assert (torch.sigmoid(whole) - torch.sigmoid(small)).abs().mean() < 0.01


def test_a_quantiser_rounds_to_its_grid_clips_at_its_ends_and_stops_gradients_outside() -> None:
    quantiser = ActivationQuantizer()
    quantiser.scale.fill_(0.5)
    x = torch.tensor([0.2, 0.3, -0.8, 100.0, -100.0], requires_grad=True)
    y = quantiser(x)
    torch.testing.assert_close(y, torch.tensor([0.0, 0.5, -1.0, 63.5, -64.0]))
    y.sum().backward()
    assert x.grad is not None
    assert x.grad.tolist() == [1, 1, 1, 0, 0]


def test_a_quantised_stream_cut_anywhere_equals_the_whole(quantised: Student) -> None:
    frames, audio, present = batch(6)
    with torch.no_grad():
        whole, _ = quantised(frames, audio, present, quantised.init_state(1))
        first, state = quantised(frames[:, :2], audio[:, :2], present[:, :2], quantised.init_state(1))
        rest, _ = quantised(frames[:, 2:], audio[:, 2:], present[:, 2:], state)
    # one sum rounded the other way may move a value by a step, hence the mean
    assert (torch.cat([first, rest], dim=1) - whole).abs().mean() < 1e-3


def test_a_layout_of_another_student_is_refused_by_the_layer_it_names(parent: Student) -> None:
    with pytest.raises(ValueError, match=r"quant.json names vision.no_such_layer"):
        quantize(Student(SPEC), {"vision.no_such_layer": {"input": True, "output": False}})


def test_snapped_biases_lie_on_the_grid_of_their_sums_and_stay_where_they_were(quantised: Student) -> None:
    model = copy.deepcopy(quantised)
    before = {n: p.clone() for n, p in model.named_parameters() if n.endswith("bias")}
    layers = {n: m for n, m in model.named_modules() if isinstance(m, QuantConv2d | QuantLinear)}
    assert calibration.snap_biases(model) == len(layers)
    again = {n: p.clone() for n, p in model.named_parameters()}
    calibration.snap_biases(model)
    for name, layer in layers.items():
        step = weight_scale(layer.weight) * layer.input_quantizer.scale if layer_has_scale(layer) else None
        if step is not None:
            moved = (layer.bias - before[f"{name}.bias"]).abs()
            assert bool((moved <= 0.51 * step).all()), name
            torch.testing.assert_close(layer.bias / step, torch.round(layer.bias / step), atol=1e-2, rtol=0)
    assert all(torch.equal(p, again[n]) for n, p in model.named_parameters())


def layer_has_scale(layer: QuantConv2d | QuantLinear) -> bool:
    return isinstance(layer.input_quantizer, ActivationQuantizer)
