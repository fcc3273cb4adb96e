"""Augmentations keep their limits, move labels with time, and clips show nothing that the front end would not."""

from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray

from distill import batches
from dyad import augment, clock
from dyad.augment import OFF, AugmentConfig
from dyad.soft_labels import SoftLabels
from student.front_cache import FrontSession
from student.frontend import audio_window
from student.spec import StudentSpec

SPEC = StudentSpec(crop_px=32)
FRAMES = 90


def session(frames: int = FRAMES, *, soft: bool = True, speaker: bool = True) -> batches.TrainingSession:
    """Pictures, labels and sound that all tell their own time: frame t has brightness t, probability t/1000."""
    rng = np.random.default_rng(5)
    pictures = np.broadcast_to(np.arange(frames, dtype=np.uint8)[:, None, None, None], (frames, 32, 32, 3))
    sound = rng.normal(0, 0.1, clock.samples_until(frames)).astype(np.float32)
    time = np.broadcast_to(np.arange(frames, dtype=np.float32)[:, None] / 1000, (frames, 17)).copy()
    return batches.TrainingSession(
        id="clock",
        front=FrontSession(np.ascontiguousarray(pictures), sound, np.ones((frames, 2), np.float32)),
        prob=time,
        act=(time > 0.05).astype(np.float32),
        soft=SoftLabels(time, time, time) if soft else None,
        speaker_au=time if speaker else None,
    )


def clip(config: AugmentConfig, seed: int = 0, start: int = 10, frames: int = 40) -> dict[str, NDArray[np.generic]]:
    return batches.cut_clip(session(), start, frames, SPEC, np.random.default_rng(seed), config)


@pytest.mark.parametrize("start", [0, 1, 2, 7, 49])
def test_an_unaugmented_clip_hears_exactly_what_the_front_end_hears(start: int) -> None:
    whole = session()
    got = batches.cut_clip(whole, start, 40, SPEC, np.random.default_rng(0), OFF)
    want = np.stack([audio_window(whole.front.audio, start + t, SPEC) for t in range(40)])
    np.testing.assert_array_equal(got["audio"], want)
    np.testing.assert_array_equal(got["frame_u8"], whole.front.frames[start : start + 40])


def test_the_fast_cut_of_a_whole_session_equals_the_front_ends() -> None:
    sound = session().front.audio[:-700]
    want = np.stack([audio_window(sound, t, SPEC) for t in range(FRAMES + 3)])
    np.testing.assert_array_equal(batches.audio_windows(sound, FRAMES + 3, SPEC), want)
    np.testing.assert_array_equal(batches.audio_windows(sound, 20, SPEC, first=33), want[33:53])


def test_the_target_of_every_horizon_is_the_frame_that_lies_that_far_ahead() -> None:
    got = clip(OFF)
    for name in ("prob", "soft_prob", "soft_act", "uncertainty"):
        assert got[name].shape == (40, 9, 17)
        for column, horizon in enumerate(SPEC.horizons):
            want = (10 + np.arange(40) + horizon) / 1000
            np.testing.assert_allclose(got[name][:, column, 3], want, atol=1e-6)


def test_targets_past_the_end_are_missing_never_zero() -> None:
    got = clip(OFF, start=50)
    prob = got["prob"][:, :, 0]
    ahead = 50 + np.arange(40)[:, None] + np.array(SPEC.horizons)[None]
    np.testing.assert_array_equal(np.isnan(prob), ahead >= FRAMES)


def test_without_a_teacher_or_a_seen_speaker_those_labels_are_missing() -> None:
    bare = session(soft=False, speaker=False)
    got = batches.cut_clip(bare, 0, 20, SPEC, np.random.default_rng(0), OFF)
    for name in ("soft_prob", "soft_act", "uncertainty", "speaker_au"):
        assert np.isnan(got[name]).all()
    assert not np.isnan(got["prob"]).any()


@pytest.mark.parametrize("seed", range(6))
def test_a_change_of_tempo_moves_pictures_and_labels_together(seed: int) -> None:
    got = clip(replace(OFF, stretch=0.1), seed)
    shown = got["frame_u8"][:, 0, 0, 0].astype(int)
    assert shown[0] == 10
    assert 10 + 39 * 0.9 - 1 <= shown[-1] <= 10 + 39 * 1.1 + 1
    np.testing.assert_allclose(got["prob"][:, 0, 0] * 1000, shown, atol=1e-3)
    np.testing.assert_allclose(got["speaker_au"][:, 0] * 1000, shown, atol=1e-3)
    assert np.abs(got["prob"][:, 8, 0] * 1000 - shown - 8 * (shown[-1] - 10) / 39).max() <= 1.6


def test_a_change_of_tempo_reads_the_sound_at_the_same_rate() -> None:
    ramp = np.arange(5000, dtype=np.float32)
    np.testing.assert_allclose(augment.stretch_sound(ramp, 100, 50, 1.1), 100 + 1.1 * np.arange(50), rtol=1e-5)
    early = augment.stretch_sound(ramp, -8, 20, 0.9)
    np.testing.assert_array_equal(early[:8], 0)
    np.testing.assert_array_equal(augment.stretch_sound(ramp, 4990, 50, 1.1)[12:], 0)
    np.testing.assert_array_equal(augment.stretch_sound(ramp, 9000, 50, 1.1), 0)
    np.testing.assert_array_equal(augment.stretch_sound(ramp, 100, 50, 1.0), ramp[100:150])


def test_a_moved_picture_moves_every_frame_of_the_clip_alike() -> None:
    frames = np.random.default_rng(1).integers(0, 255, (5, 32, 32, 3), np.uint8)
    frames[:] = frames[:1]
    for seed in range(8):
        moved = augment.move_picture(frames, np.random.default_rng(seed), AugmentConfig())
        assert moved.shape == frames.shape
        assert (moved == moved[:1]).all()


def test_a_mirrored_clip_is_mirrored_and_nothing_else() -> None:
    frames = np.random.default_rng(2).integers(0, 255, (3, 8, 8, 3), np.uint8)
    flipped = augment.move_picture(frames, np.random.default_rng(0), replace(OFF, flip=1.0))
    np.testing.assert_array_equal(flipped, frames[:, :, ::-1])


def test_light_changes_keep_the_order_of_grey_levels_and_the_range() -> None:
    ramp = np.broadcast_to(np.arange(256, dtype=np.uint8)[None, None, :, None], (2, 1, 256, 3))
    for seed in range(8):
        lit = augment.light(ramp, np.random.default_rng(seed), AugmentConfig())
        assert lit.dtype == np.uint8
        assert (np.diff(lit.astype(int), axis=2) >= 0).all()
    np.testing.assert_array_equal(augment.light(ramp, np.random.default_rng(0), OFF), ramp)


def test_loudness_stays_within_its_limit_and_added_noise_is_faint() -> None:
    tone = (0.1 * np.sin(np.arange(16000) / 10)).astype(np.float32)
    config = AugmentConfig()
    for seed in range(8):
        loud = augment.loudness(tone, np.random.default_rng(seed), config)
        gain = float(loud @ tone / (tone @ tone))
        assert 10 ** (-config.gain_db / 20) - 0.01 <= gain <= 10 ** (config.gain_db / 20) + 0.01
        noise = loud - gain * tone
        assert 20 * np.log10(np.std(gain * tone) / max(float(np.std(noise)), 1e-9)) >= config.noise_db - 1
    np.testing.assert_allclose(augment.loudness(tone, np.random.default_rng(0), OFF), tone, atol=1e-7)


def test_silence_stays_silence() -> None:
    for seed in range(4):
        quiet = augment.loudness(np.zeros(1000, np.float32), np.random.default_rng(seed), AugmentConfig())
        np.testing.assert_array_equal(quiet, 0)


def test_a_clip_may_lose_one_sense_but_never_both() -> None:
    present = np.ones((10, 2), np.float32)
    config = replace(OFF, drop_sight=0.4, drop_sound=0.4)
    kinds = set()
    for seed in range(60):
        got = augment.drop_senses(present, np.random.default_rng(seed), config)
        assert (got == got[:1]).all()
        kinds.add((float(got[0, 0]), float(got[0, 1])))
    assert kinds == {(1.0, 1.0), (0.0, 1.0), (1.0, 0.0)}
    assert present.min() == 1


def test_the_same_draw_gives_the_same_clip_and_another_gives_another() -> None:
    first, again, other = (clip(AugmentConfig(), seed) for seed in (3, 3, 4))
    for name, values in first.items():
        np.testing.assert_array_equal(values, again[name])
    assert not np.array_equal(first["frame_u8"], other["frame_u8"])


def test_clips_stack_into_tensors_of_the_students_shapes() -> None:
    batch = batches.stack([clip(AugmentConfig(), seed) for seed in range(3)])
    assert tuple(batch.frame_u8.shape) == (3, 40, 32, 32, 3)
    assert tuple(batch.audio.shape) == (3, 40, 800)
    assert tuple(batch.present.shape) == (3, 40, 2)
    assert tuple(batch.prob.shape) == (3, 40, 9, 17)
    assert tuple(batch.speaker_au.shape) == (3, 40, 17)
