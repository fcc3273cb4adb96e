"""The peers do the work that they stand for: same answers live as in training, no future, published sizes."""

import pytest
import torch
from torch import Tensor

from benchmarks.peers import eager, parameters, resnet_gru, transvae
from benchmarks.peers.eager import NoCompilerError, StudentStream
from benchmarks.peers.resnet_gru import ResNetGru, ResNetGruStream
from benchmarks.peers.transvae import TransVae, TransVaeStream, VideoEncoder
from student.model import Student
from student.spec import StudentSpec

FRAMES, WINDOW = 11, 4
SPEC = StudentSpec(
    crop_px=32, backbone="mobilenetv4_conv_small_035", d_model=16, layers=2, heads=2, window_frames=WINDOW, ffn=24,
    conv_kernel=3, mel_bins=16, visual_channels=4, horizons=(0, 2), dropout=0.0,
)  # fmt: skip
UNITS = len(SPEC.au_names)


def inputs(batch: int = 2) -> tuple[Tensor, Tensor, Tensor]:
    maker = torch.Generator().manual_seed(1)
    pictures = torch.randint(0, 256, (batch, FRAMES, 32, 32, 3), dtype=torch.uint8, generator=maker)
    sound = 0.1 * torch.randn(batch, FRAMES, 800, generator=maker)
    return pictures, sound, torch.ones(batch, FRAMES, 2)


@pytest.fixture(scope="module")
def peer() -> ResNetGru:
    torch.manual_seed(0)
    model = ResNetGru(SPEC)
    model.vision.calibrate(inputs()[0].flatten(0, 1))
    with torch.no_grad():
        model.heads.out.weight.mul_(30)
        model.missing.normal_()
    return model.eval()


def test_the_peer_of_seed_002_answers_live_what_it_answers_in_training(peer: ResNetGru) -> None:
    pictures, sound, present = inputs(1)
    with torch.no_grad():
        logits, _ = peer(pictures, sound, present, peer.init_state(1))
    assert logits.shape == (1, FRAMES, 2, UNITS, 2)
    whole = torch.sigmoid(logits)
    stream = ResNetGruStream(peer, column=1)
    live = torch.stack([stream.step(p, s) for p, s in zip(pictures[0], sound[0], strict=True)])
    assert whole.std() > 0.05
    torch.testing.assert_close(live, whole[0, :, 1, :, 0], atol=1e-5, rtol=0)


def test_its_answer_comes_from_the_window_that_ends_with_the_frame_and_from_nothing_else(peer: ResNetGru) -> None:
    pictures, sound, present = inputs()
    present[:, 5, 0] = present[:, 6, 1] = 0
    with torch.no_grad():
        whole, _ = peer(pictures, sound, present, peer.init_state(2))
        for t in (WINDOW - 1, 7, FRAMES - 1):
            last = slice(t - WINDOW + 1, t + 1)
            alone, _ = peer(pictures[:, last], sound[:, last], present[:, last], peer.init_state(2))
            torch.testing.assert_close(alone[:, -1], whole[:, t], atol=1e-5, rtol=0)


def test_no_future_frame_has_a_gradient_on_a_prediction_of_the_peer(peer: ResNetGru) -> None:
    pictures, sound, present = inputs()
    t = 6
    seen = peer.visual_features(pictures).detach().requires_grad_()
    sound.requires_grad_()
    peer.train()
    logits, _ = peer.from_features(seen, sound, present, peer.init_state(2))
    peer.eval()
    logits[:, t].square().sum().backward()
    for x in (seen, sound):
        assert x.grad is not None
        reached = x.grad.abs().flatten(2).sum((0, 2)) > 0
        assert reached.tolist() == [t - WINDOW < k <= t for k in range(FRAMES)]


def test_an_absent_sense_has_no_gradient_on_a_prediction_of_the_peer(peer: ResNetGru) -> None:
    pictures, sound, present = inputs()
    present[:, 5] = 0
    seen = peer.visual_features(pictures).detach().requires_grad_()
    sound.requires_grad_()
    logits, _ = peer.from_features(seen, sound, present, peer.init_state(2))
    logits.square().sum().backward()
    assert seen.grad is not None
    assert sound.grad is not None
    assert not seen.grad[:, 5].any()
    assert not sound.grad[:, 5].any()


def test_a_stride_thins_the_predictions_of_training_and_changes_none(peer: ResNetGru) -> None:
    pictures, sound, present = inputs()
    thin = ResNetGru(SPEC, stride=3)
    thin.load_state_dict(peer.state_dict())
    with torch.no_grad():
        seen = peer.visual_features(pictures)
        every, end = peer.from_features(seen, sound, present, peer.init_state(2))
        thin.train()
        some, end_of_thin = thin.from_features(seen, sound, present, thin.init_state(2))
        torch.testing.assert_close(some, every[:, thin.predicted], atol=1e-5, rtol=0)
        assert some.shape[1] == FRAMES // 3
        for a, b in zip(end, end_of_thin, strict=True):
            torch.testing.assert_close(a, b)
    assert thin.eval().predicted == slice(None)


def test_a_width_that_eight_heads_cannot_share_is_refused() -> None:
    with pytest.raises(ValueError, match="8 heads; d_model 12"):
        ResNetGru(SPEC.replace(d_model=12))


def test_transvae_has_the_parameters_that_were_measured_on_the_published_one() -> None:
    assert parameters(TransVae()) == 1_670_835
    assert parameters(VideoEncoder()) == 664_288


def test_both_live_modes_of_transvae_answer_a_window_of_the_same_shape() -> None:
    torch.manual_seed(0)
    model = TransVae()
    for mode in transvae.MODES:
        stream = TransVaeStream(model, mode, context_frames=24, crop_px=32)
        for _ in range(2):
            stream.window()
        assert stream.face.shape == (1, 16, 58)
        assert stream.attributes.shape == (1, 16, 25)
        assert stream.face[:, -8:].abs().sum() > 0
        assert torch.isfinite(stream.attributes).all()


def test_transvae_costs_the_multiply_adds_that_its_docstring_states() -> None:
    counts = [transvae.make(mode).facts["multiply_adds"] for mode in transvae.MODES]
    assert [f"{c / 1e9:.1f} G" for c in counts] == ["18.0 G", "2.3 G"]
    assert all(f"{c / 1e9:.1f} G" in (transvae.__doc__ or "") for c in counts)


def test_transvae_normalises_over_time_so_that_a_later_frame_changes_an_earlier_feature() -> None:
    torch.manual_seed(0)
    encoder, video = VideoEncoder().eval(), torch.rand(1, 3, 4, 32, 32)
    changed = video.clone()
    changed[:, :, 3] = 1 - changed[:, :, 3]
    with torch.no_grad():
        assert not torch.allclose(encoder(video)[:, 0], encoder(changed)[:, 0], atol=1e-4)


def test_transvae_refuses_an_unknown_mode_and_lists_the_known() -> None:
    with pytest.raises(ValueError, match="as_published, new_frames_only"):
        TransVaeStream(TransVae(), "fast")  # type: ignore[arg-type]


def test_the_slow_ways_of_our_student_agree_while_nothing_is_older_than_the_window() -> None:
    torch.manual_seed(0)
    model = Student(SPEC).eval()
    streams = {way: StudentStream(model, way) for way in ("window", "cached_eyes", "step")}
    window, cached, step = streams.values()
    want = window.frame()
    assert want.shape == (1, 2, UNITS, 2)
    cached.audio = window.audio
    by_cached = by_step = torch.empty(0)
    for t in range(WINDOW):
        cached.frames = step.frames = window.frames[:, t : t + 1]
        step.audio = window.audio[:, t : t + 1]
        by_cached, by_step = cached.frame(), step.frame()
    torch.testing.assert_close(by_cached, want, atol=1e-5, rtol=0)
    torch.testing.assert_close(by_step, want, atol=1e-5, rtol=0)


def test_every_peer_says_how_many_frames_a_call_answers() -> None:
    wide = resnet_gru.make(SPEC, crop_px=64)
    for unit, frames in ((wide, 1), (resnet_gru.make(SPEC), 1), (eager.make(SPEC, "cached_eyes"), 1)):
        unit()
        assert unit.frames == frames
        assert unit.facts["multiply_adds"] > 0
    assert wide.facts["multiply_adds"] > resnet_gru.make(SPEC).facts["multiply_adds"]


def test_a_machine_without_a_compiler_is_told_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CXX", "no-such-compiler")
    with pytest.raises(NoCompilerError, match=r"no-such-compiler and found none; install it"):
        eager.make(SPEC, "compiled")
