"""A stream may be cut anywhere, sees nothing of its future, and remembers in a state of fixed size."""

import functools
import itertools
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from student.model import Student
from student.spec import FUSIONS, StudentSpec
from student.streaming import CausalConv, attend, attention_bias, by_head, window_bias

Inputs = tuple[Tensor, Tensor, Tensor]
FRAMES = 24
SPEC = StudentSpec(
    crop_px=32, backbone="mobilenetv4_conv_small_035", d_model=16, layers=2, heads=2, window_frames=6, ffn=24,
    conv_kernel=3, mel_bins=16, visual_channels=4, horizons=(0, 2), dropout=0.0,
)  # fmt: skip


@functools.cache
def student(fusion: str) -> Student:
    """A tiny student whose every weight, the "missing" vectors included, differs from zero."""
    torch.manual_seed(0)
    model = Student(SPEC.replace(fusion=fusion))
    model.vision.calibrate(torch.randint(0, 256, (32, 32, 32, 3), dtype=torch.uint8))
    with torch.no_grad():
        for weight in model.parameters():
            if weight.ndim == 1:
                weight.add_(0.1 * torch.randn_like(weight))
        model.heads.out.weight.mul_(30)
    return model.eval()


@functools.cache
def stream(batch: int = 2, frames: int = FRAMES) -> Inputs:
    """Moving pictures, noisy sound, and senses that come and go."""
    maker = torch.Generator().manual_seed(1)
    pictures = torch.randint(0, 256, (batch, frames, 32, 32, 3), dtype=torch.uint8, generator=maker)
    sound = 0.1 * torch.randn(batch, frames, 800, generator=maker)
    return pictures, sound, (torch.rand(batch, frames, 2, generator=maker) > 0.2).float()


def run(model: Student, inputs: Inputs, cuts: list[int]) -> tuple[Tensor, Any]:
    """Logits of a stream handed in piece by piece, and the last state."""
    edges = [0, *sorted(cuts), inputs[0].shape[1]]
    state, pieces = model.init_state(inputs[0].shape[0]), []
    with torch.no_grad():
        for a, b in itertools.pairwise(edges):
            if a < b:
                logits, state = model(*(x[:, a:b] for x in inputs), state)
                pieces.append(logits)
    return torch.cat(pieces, dim=1), state


@pytest.mark.parametrize("fusion", FUSIONS)
@settings(max_examples=8, deadline=None, derandomize=True)
@given(cuts=st.lists(st.integers(1, FRAMES - 1), max_size=6))
def test_a_stream_cut_anywhere_equals_the_whole(fusion: str, cuts: list[int]) -> None:
    model = student(fusion)
    whole, end = run(model, stream(), [])
    parts, end_of_parts = run(model, stream(), cuts)
    torch.testing.assert_close(parts, whole, atol=1e-5, rtol=0)
    for name, a, b in zip(end._fields, end, end_of_parts, strict=True):
        torch.testing.assert_close(a, b, atol=1e-5, rtol=0, msg=name)


@pytest.mark.parametrize("fusion", FUSIONS)
def test_a_stream_of_single_frames_equals_the_whole_long_after_the_window(fusion: str) -> None:
    model, inputs = student(fusion), stream(1, 90)
    whole, _ = run(model, inputs, [])
    steps, _ = run(model, inputs, list(range(1, 90)))
    assert whole.std() > 0.1
    torch.testing.assert_close(steps, whole, atol=1e-5, rtol=0)


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("fusion", FUSIONS)
def test_no_future_frame_or_sound_has_a_gradient_on_a_prediction(fusion: str, training: bool) -> None:
    model, t = student(fusion), 9
    pictures, sound, _ = stream()
    present = torch.ones(2, FRAMES, 2)
    seen = model.visual_features(pictures).detach().requires_grad_()
    sound = sound.clone().requires_grad_()
    model.train(training)
    logits, _ = model.from_features(seen, sound, present, model.init_state(2))
    model.eval()
    logits[:, t].square().sum().backward()
    assert seen.grad is not None
    assert sound.grad is not None
    assert not seen.grad[:, t + 1 :].any()
    assert not sound.grad[:, t + 1 :].any()
    assert seen.grad[:, t].abs().sum() > 0
    assert sound.grad[:, t].abs().sum() > 0
    assert seen.grad[:, t - 5].abs().sum() > 0


@pytest.mark.parametrize("training", [False, True])
def test_no_future_pixel_changes_what_the_eyes_see_now(training: bool) -> None:
    model = student("concat")
    pictures = stream()[0][:, :6]
    changed = pictures.clone()
    changed[:, 3:] = 255 - changed[:, 3:]
    model.train(training)
    with torch.no_grad():
        before, after = model.visual_features(pictures), model.visual_features(changed)
    model.eval()
    torch.testing.assert_close(before[:, :3], after[:, :3], atol=0, rtol=0)
    assert (before[:, 3:] - after[:, 3:]).abs().max() > 1e-3


@pytest.mark.parametrize("fusion", FUSIONS)
def test_a_conversation_in_a_batch_gets_what_it_gets_alone(fusion: str) -> None:
    model = student(fusion)
    together, _ = run(model, stream(), [])
    for i in range(2):
        alone, _ = run(model, tuple(x[i : i + 1] for x in stream()), [])  # pyright: ignore[reportArgumentType]
        torch.testing.assert_close(alone[0], together[i], atol=1e-5, rtol=0)


@pytest.mark.parametrize("sense", [0, 1])
@pytest.mark.parametrize("fusion", FUSIONS)
def test_nothing_of_an_absent_sense_reaches_any_prediction(fusion: str, sense: int) -> None:
    model = student(fusion)
    pictures, sound, _ = stream()
    present = torch.ones(2, FRAMES, 2)
    present[:, 4:8, sense] = 0
    other_pictures, other_sound = pictures.clone(), sound.clone()
    if sense == 0:
        other_pictures[:, 4:8] = 255 - other_pictures[:, 4:8]
    else:
        other_sound[:, 4:8] = float("nan")
    want, _ = run(model, (pictures, sound, present), [])
    got, _ = run(model, (other_pictures, other_sound, present), [])
    torch.testing.assert_close(got, want, atol=0, rtol=0)
    unmasked, _ = run(model, (pictures, sound, torch.ones(2, FRAMES, 2)), [])
    assert (unmasked - want)[:, 4:8].abs().max() > 1e-3
    torch.testing.assert_close(unmasked[:, :4], want[:, :4], atol=0, rtol=0)


@pytest.mark.parametrize("fusion", FUSIONS)
def test_the_state_keeps_its_names_and_sizes_however_long_the_stream(fusion: str) -> None:
    model = student(fusion)
    first = model.init_state(2)
    assert first._fields == tuple(model.state_shapes())
    for frames in (1, 5, FRAMES):
        _, state = run(model, tuple(x[:, :frames] for x in stream()), [])  # pyright: ignore[reportArgumentType]
        assert state._fields == first._fields
        assert [x.shape for x in state] == [x.shape for x in first]


def test_frames_older_than_the_receptive_field_are_forgotten() -> None:
    model = student("concat")
    pictures, sound, present = stream(1, 40)
    reach = SPEC.receptive_field_frames
    assert reach < 40
    other = sound.clone()
    other[:, : 40 - reach] += 1.0
    a, _ = run(model, (pictures, sound, present), [])
    b, _ = run(model, (pictures, other, present), [])
    torch.testing.assert_close(a[:, -1], b[:, -1], atol=0, rtol=0)
    other[:, 40 - reach :] += 1.0
    c, _ = run(model, (pictures, other, present), [])
    assert (a[:, -1] - c[:, -1]).abs().max() > 1e-4


def test_the_default_student_remembers_at_least_eight_seconds() -> None:
    assert StudentSpec().receptive_field_frames >= 8 * 30


def test_nothing_of_a_stream_is_kept_on_the_model() -> None:
    model = student("cross_attention")
    before = {name: value.clone() for name, value in model.state_dict().items()}
    attributes = {name: set(vars(m)) for name, m in model.named_modules()}
    run(model, stream(), [3])
    assert attributes == {name: set(vars(m)) for name, m in model.named_modules()}
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name]), name


def test_a_causal_convolution_equals_one_that_is_padded_with_zeros_on_the_left() -> None:
    torch.manual_seed(0)
    layer, x = CausalConv(3, 4), torch.randn(2, 11, 3)
    got, memory = layer(x.flatten(0, 1), torch.zeros(2, 3, 3))
    padded = torch.cat([torch.zeros(2, 3, 3), x], dim=1)
    want = torch.stack([(padded[:, t : t + 4] * layer.taps).sum(1) + layer.bias for t in range(11)], dim=1)
    torch.testing.assert_close(got.reshape(2, 11, 3), want)
    assert torch.equal(memory, x[:, -3:])


def test_windowed_attention_equals_a_loop_over_frames_and_heads() -> None:
    torch.manual_seed(0)
    width, heads, window, frames = 8, 2, 4, 9
    query, keys, values = (torch.randn(frames, width) for _ in range(3))
    zeros, bias = (
        torch.zeros(1, heads, window - 1, 4),
        attention_bias(heads, window, frames, torch.zeros(1, window - 1)),
    )
    got, _, _ = attend(*(by_head(z, 1, heads) for z in (query, keys, values)), zeros, zeros, bias)
    for t in range(frames):
        mixed = []
        for n in range(heads):
            part, past = slice(4 * n, 4 * n + 4), range(max(0, t - window + 1), t + 1)
            slope = 2.0 ** (-8.0 * (n + 1) / heads)
            scores = torch.stack([query[t, part] @ keys[s, part] / 2.0 - slope * (t - s) for s in past])
            weights = torch.softmax(scores, dim=0)
            mixed.append(torch.stack([w * values[s, part] for w, s in zip(weights, past, strict=True)]).sum(0))
        torch.testing.assert_close(got[t], torch.cat(mixed))


def test_the_window_bias_opens_exactly_the_window_of_each_frame() -> None:
    bias = window_bias(heads=2, frames=5, window=4)
    assert bias.shape == (2, 5, 3 + 5)
    for t in range(5):
        assert (bias[0, t] > -100).nonzero().flatten().tolist() == list(range(t, t + 4))
