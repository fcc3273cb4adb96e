"""Trans-VAE beside the student: its size, what reaches an answer, and when an answer can be had."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from tiny_baseline import SMALL, WINDOW, answer, seen, small_model

from distill.baselines import predict, rollout
from distill.baselines.settings import Timing, TransVaeSettings, timing
from distill.baselines.transvae import TransVae
from distill.baselines.vision import running_norm


@pytest.mark.parametrize(("online", "count"), [(True, 1_670_835), (False, 1_315_891)], ids=["online", "offline"])
def test_the_models_have_the_parameters_that_were_measured_on_the_published_ones(online: bool, count: int) -> None:
    assert sum(p.numel() for p in TransVae(online=online).parameters()) == count


@pytest.mark.parametrize("frames", [8, 22, 23, 3])
@pytest.mark.parametrize("online", [True, False], ids=["online", "offline"])
def test_every_frame_is_answered_also_the_last_ones_of_no_whole_window(online: bool, frames: int) -> None:
    crops, cepstra = seen(2, frames)
    model = small_model(online=online)
    looks = rollout.behaviours(model, crops, cepstra, SMALL) if frames > 1 else []
    response = rollout.respond(model, looks, frames, torch.zeros(len(looks), 2, 128))
    assert response.attributes.shape == (2, frames, 25)
    assert response.face.shape == (2, frames, 58)
    assert (response.attributes.abs().sum(dim=2) > 0).all()
    assert len(looks) == (-(-frames // WINDOW) if online else 1)


@pytest.mark.parametrize("encode", ["running", "history"])
def test_no_gradient_reaches_a_window_from_frames_after_it_but_from_all_frames_in_it(encode: str) -> None:
    model = small_model()
    crops, cepstra = seen()
    cepstra.requires_grad_()
    pictured = crops.float().requires_grad_()
    settings = replace(SMALL, encode=encode, context_frames=0)
    said = answer(model, pictured, cepstra, settings)
    for t in (0, 5, 11):
        end = (t // WINDOW + 1) * WINDOW
        gradients = torch.autograd.grad(said[0, t].sum(), (pictured, cepstra), retain_graph=True)
        for gradient in gradients:
            reach = gradient[0].flatten(1).abs().sum(dim=1)
            assert (reach[end:] == 0).all()
            assert (reach[:end] > 0).all()


@pytest.mark.parametrize("encode", ["running", "history"])
def test_a_beginning_is_answered_as_it_is_within_the_whole_clip(encode: str) -> None:
    model, (crops, cepstra) = small_model(), seen(frames=20)
    settings = replace(SMALL, encode=encode)
    whole = answer(model, crops, cepstra, settings)
    for frames in (WINDOW, 12):
        part = answer(model, crops[:, :frames], cepstra[:, :frames], settings)
        torch.testing.assert_close(part, whole[:, :frames], atol=1e-5, rtol=0)


def test_an_answer_reads_no_features_from_before_its_context() -> None:
    model = small_model()
    crops, cepstra = seen()
    cepstra.requires_grad_()
    looks = rollout.behaviours(model, crops, cepstra, SMALL)
    reach = torch.autograd.grad(looks[-1].sum(), cepstra)[0][0].abs().sum(dim=1)
    assert (reach[:12] == 0).all()  # 24 frames with the repeated ones, of which the last 12 are kept
    assert (reach[12:] > 0).all()


def test_running_statistics_are_those_of_all_frames_up_to_the_end_of_the_window() -> None:
    maker = torch.Generator().manual_seed(2)
    x = torch.randn(2, 3, 12, 5, 5, generator=maker) * 3 + 7
    got, _ = running_norm(x, WINDOW, None)
    for end in (4, 8, 12):
        want = torch.nn.functional.instance_norm(x[:, :, :end])[:, :, end - WINDOW :]
        torch.testing.assert_close(got[:, :, end - WINDOW : end], want, atol=1e-4, rtol=0)


def test_a_clip_encoded_in_pieces_is_the_clip_encoded_at_once() -> None:
    model, (crops, _) = small_model(), seen(2, 20)
    video = rollout.pictures(crops)
    whole, _ = model.video.windows(video, WINDOW)
    head, state = model.video.windows(video[:, :, :8], WINDOW)
    tail, _ = model.video.windows(video[:, :, 8:], WINDOW, state)
    torch.testing.assert_close(torch.cat([head, tail], dim=1), whole)


def test_the_first_window_is_encoded_as_if_it_were_the_whole_clip() -> None:
    model, (crops, cepstra) = small_model(), seen(frames=WINDOW)
    running, history = (answer(model, crops, cepstra, replace(SMALL, encode=way)) for way in ("running", "history"))
    torch.testing.assert_close(running, history)


def test_the_offline_model_looks_at_the_whole_clip() -> None:
    crops, cepstra = seen()
    cepstra.requires_grad_()
    said = answer(small_model(online=False), crops, cepstra)
    assert (torch.autograd.grad(said[0, 0].sum(), cepstra)[0][0].abs().sum(dim=1) > 0).all()


def test_react_refuses_a_past_that_does_not_end_where_the_window_begins() -> None:
    with pytest.raises(ValueError, match="all but the last 4 of 8 frames, got 5"):
        small_model().react(torch.zeros(1, 8, 128), torch.zeros(1, 5, 58), torch.zeros(1, 5, 25))


# ---- what an answer may know ------------------------------------------------------------------------------------


def test_latency_is_the_window_and_training_ahead_buys_it_back() -> None:
    published = timing("transvae-online", TransVaeSettings(), 128, 900)
    assert (published.block_frames, published.look_ahead_frames, published.horizons) == (8, 7, (0,))
    wide = timing("transvae-online", TransVaeSettings(window_frames=16), 128, 900)
    assert (wide.block_frames, wide.look_ahead_frames) == (16, 15)
    live = timing("transvae-online", TransVaeSettings(ahead_frames=11), 128, 900)
    assert (live.look_ahead_frames, live.horizons) == (0, (0, 1, 2, 3, 4))
    assert timing("transvae-offline", TransVaeSettings(ahead_frames=11), 128, 900).look_ahead_frames == 116


def test_an_answer_that_was_normalised_over_its_session_may_have_used_all_of_it() -> None:
    whole = TransVaeSettings(normalise="session")
    assert timing("transvae-offline", whole, 128, 900) == Timing(block_frames=900, ahead_frames=0)
    assert timing("transvae-offline", whole, 128, 900).look_ahead_frames == 899
    assert timing("transvae-online", whole, 128, 900).look_ahead_frames == 7


@pytest.mark.parametrize(("window", "ahead"), [(8, 0), (8, 3), (8, 11), (16, 30)])
def test_no_stored_value_uses_a_frame_later_than_its_look_ahead(window: int, ahead: int) -> None:
    when = Timing(block_frames=window, ahead_frames=ahead)
    last_seen = (np.arange(96) // window + 1) * window - 1.0  # of the window of row u, by definition
    stored = predict.at_horizons(last_seen[:, None].astype(np.float32), ahead, when.horizons, np.array([-1.0]))
    peek = stored[:, :, 0] - np.arange(96)[:, None]
    assert peek.max() <= when.look_ahead_frames
    assert when.look_ahead_frames == 0 or (peek.max() == when.look_ahead_frames and when.horizons == (0,))


def test_a_stored_value_is_what_was_said_for_its_frame_and_the_mean_before_anything_was_said() -> None:
    said = np.arange(10, dtype=np.float32)[:, None] + 3  # row u speaks of frame u + 3
    stored = predict.at_horizons(said, 3, (0, 2), np.array([-1.0]))
    assert stored[:, 0, 0].tolist() == [-1, -1, -1, 3, 4, 5, 6, 7, 8, 9]
    assert stored[:, 1, 0].tolist() == [-1, 3, 4, 5, 6, 7, 8, 9, 10, 11]
