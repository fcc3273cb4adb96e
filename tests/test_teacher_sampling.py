"""Windows for tuning: drawn by place alone, rare units more often, and whatever moves time moves the targets."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from dyad import clock
from dyad.augment import OFF
from dyad.session import Session
from teacher import sampling
from teacher.sampling import Dyad, Sampler, cut_window
from teacher.windows import SpeakerMedia, WindowSpec, cut

WINDOW = WindowSpec(frames=60, video_fps=5, size_px=56)


def _clock_dyad(frames: int = 600, units: int = 17, speaker: bool = True) -> Dyad:
    """Pictures, sound and labels that all tell their own time: frame t has probability t/1000."""
    time = np.broadcast_to(np.arange(frames, dtype=np.float32)[:, None] / 1000, (frames, units)).copy()
    pictures = np.broadcast_to(
        (np.arange(frames // 6) % 256).astype(np.uint8)[:, None, None, None], (frames // 6, 8, 8, 3)
    )
    sound = np.arange(clock.samples_until(frames), dtype=np.float32) / clock.samples_until(frames)
    session = Session(
        id="clock", speaker_video_path=Path("v"), speaker_audio_path=Path("a"), listener_video_path=None,
        listener_audio_path=None, au_names=tuple(f"AU{i}" for i in range(units)), prob=time,
        act=np.zeros_like(time), fps=30.0, duration_s=frames / 30, n_frames=frames,
    )  # fmt: skip
    return Dyad(session, SpeakerMedia(pictures, sound, frames), time if speaker else None)


def test_lengths_are_those_between_least_and_full_that_the_picture_grid_holds() -> None:
    assert sampling.lengths(WindowSpec(frames=300, video_fps=5), 5.0) == [180, 240, 300]
    assert sampling.lengths(WindowSpec(frames=240, video_fps=3), 5.0) == [180, 240]
    assert sampling.lengths(WindowSpec(frames=300, video_fps=10), 5.0) == [150, 180, 210, 240, 270, 300]
    assert sampling.lengths(WindowSpec(frames=60, video_fps=5), 5.0) == [60]
    for frames in sampling.lengths(WindowSpec(frames=300, video_fps=15), 1.0):
        WindowSpec(frames=frames, video_fps=15)


def test_an_unaugmented_window_is_the_labellers_cut_with_targets_of_the_frames_ahead() -> None:
    dyad, spec = _clock_dyad(), WindowSpec(frames=120, video_fps=5, size_px=56)
    window = cut_window(dyad, 36, spec, 9, OFF, np.random.default_rng(0))
    pictures, sound = cut(dyad.speaker, 36, spec)
    np.testing.assert_array_equal(window.pictures, pictures)
    np.testing.assert_allclose(window.sound, sound, atol=1e-6)
    want = (36 + np.arange(120)[:, None] + np.arange(9)) / 1000
    np.testing.assert_allclose(window.prob[..., 3], want, atol=1e-6)
    np.testing.assert_allclose(window.speaker_au[:, 3], want[:, 0], atol=1e-6)


def test_targets_past_the_end_are_missing_never_zero() -> None:
    dyad = _clock_dyad(frames=130)
    window = cut_window(dyad, 12, WindowSpec(frames=120, video_fps=5), 9, OFF, np.random.default_rng(0))
    ahead = 12 + np.arange(120)[:, None] + np.arange(9)
    np.testing.assert_array_equal(np.isnan(window.prob[..., 0]), ahead >= 130)


@pytest.mark.parametrize("seed", range(4))
def test_a_change_of_tempo_moves_pictures_sound_and_targets_together(seed: int) -> None:
    dyad, spec = _clock_dyad(), WindowSpec(frames=240, video_fps=5, size_px=56)
    window = cut_window(dyad, 60, spec, 9, replace(OFF, stretch=0.1), np.random.default_rng(seed))
    at = window.prob[:, 0, 0] * 1000
    assert at[0] == pytest.approx(60)
    assert at[-1] != pytest.approx(299)
    shown = window.pictures[:, 0, 0, 0].astype(float) * 6
    assert (np.abs(shown - at[::6]) < 6).all()
    heard = window.sound[[clock.samples_until(t) for t in range(240)]] * 600
    np.testing.assert_allclose(heard, at, atol=1.0)


def test_a_window_without_sight_teaches_nothing_about_the_speakers_face() -> None:
    blind = cut_window(_clock_dyad(), 0, WINDOW, 9, replace(OFF, drop_sight=1.0), np.random.default_rng(0))
    assert (blind.pictures == 128).all()
    assert np.isnan(blind.speaker_au).all()
    assert not np.isnan(blind.prob).any()


def test_windows_with_a_rare_unit_are_drawn_more_often_and_none_is_left_out() -> None:
    dyad = _clock_dyad()
    act = np.zeros((600, 17), np.float32)
    act[::2, 0], act[500:505, 1] = 1.0, 1.0
    dyad = replace(dyad, session=replace(dyad.session, act=act))
    counts = []
    for strength in (0.0, 1.0):
        sampler = Sampler([dyad], WINDOW, 5.0, strength, seed=0)
        starts = np.array([s for step in range(300) for _, s in sampler.draw(step, 0, 4)])
        assert (starts % 12 == 0).all()
        assert len(set(starts)) == (600 - 60) // 12 + 1
        counts.append(((starts > 440) & (starts < 505)).sum())
    assert counts[1] > 1.5 * counts[0]


def test_a_draw_depends_on_seed_step_and_place_alone() -> None:
    dyads = [_clock_dyad(), _clock_dyad(700)]
    spec = WindowSpec(frames=300, video_fps=5, size_px=56)
    one, other = (Sampler(dyads, spec, 5.0, 1.0, seed=3) for _ in range(2))
    later = other.draw(7, 2, 3)
    assert one.draw(7, 2, 3) == later
    assert len({tuple(one.draw(7, part, 3)) for part in range(6)}) > 1
    assert {one.length(step) for step in range(40)} == {180, 240, 300}


def test_masked_stripes_take_the_mean_and_leave_the_rest() -> None:
    rng = np.random.default_rng(0)
    mel = rng.normal(size=(6, 128, 400)).astype(np.float32)
    masked = mel.copy()
    sampling.mask_spectrum(masked, np.random.default_rng(1), bands=16, columns=30)
    for before, after in zip(mel, masked, strict=True):
        changed = before != after
        bands, columns = changed.all(axis=1), changed.all(axis=0)
        assert bands.sum() <= 16
        assert columns.sum() <= 30
        assert not (changed & ~bands[:, None] & ~columns[None]).any()
        assert np.allclose(after[changed], before.mean())
    sampling.mask_spectrum(mel, np.random.default_rng(1), bands=0, columns=0)
    assert not np.array_equal(mel, masked)
