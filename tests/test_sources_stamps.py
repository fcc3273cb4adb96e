"""Time stamps of a stream become times of capture: jitter of arrival does not reach them, drift and leaps do."""

import threading

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deploy.sources.rings import SNAP_SAMPLES, PictureRing, SoundRing
from deploy.sources.stamps import JUMP_S, TimeMap, captured_in_step
from dyad.clock import SAMPLE_RATE_HZ


def mapped(own_s: np.ndarray, arrived_s: np.ndarray, times: TimeMap) -> np.ndarray:
    return np.array([times.captured_s(float(o), float(a)) for o, a in zip(own_s, arrived_s, strict=True)])


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 10_000), st.floats(-1e5, 1e5))
def test_jitter_of_arrival_does_not_jitter_the_stamps(seed: int, apart_s: float) -> None:
    rng = np.random.default_rng(seed)
    true_s = 50 + np.arange(600) / 30
    late_s = rng.exponential(0.02, 600)
    got_s = mapped(true_s - apart_s, true_s + late_s, TimeMap())
    error_s = got_s - true_s
    assert (got_s <= true_s + late_s + 1e-9).all(), "captured after it arrived"
    assert error_s.min() > -1e-9, "the smallest delay cannot be seen, but nothing is put before its capture"
    assert np.abs(np.diff(error_s[60:])).max() < 0.005
    assert error_s[60:].std() < 0.25 * late_s.std()


@pytest.mark.parametrize("ppm", [-200, 200])
def test_a_clock_that_drifts_is_followed(ppm: int) -> None:
    rng = np.random.default_rng(1)
    true_s = np.arange(30 * 600) / 30
    got_s = mapped(true_s * (1 + ppm * 1e-6), true_s + rng.exponential(0.005, len(true_s)), TimeMap())
    assert np.abs(got_s - true_s)[300:].max() < 0.01, "uncorrected it would be 120 ms after ten minutes"


def test_the_known_latency_is_taken_off() -> None:
    assert TimeMap(0.03).captured_s(5.0, 105.0) == pytest.approx(104.97)


@pytest.mark.parametrize("leap_s", [40.0, -40.0])
def test_a_leap_of_the_senders_clock_starts_the_mapping_afresh_and_is_counted(leap_s: float) -> None:
    jumps: list[int] = []
    times = TimeMap(on_jump=lambda: jumps.append(1))
    true_s = np.arange(300) / 30
    own_s = true_s + np.where(np.arange(300) >= 100, leap_s, 0.0)
    got_s = mapped(own_s, true_s + 0.01, times)
    assert len(jumps) == 1
    np.testing.assert_allclose(got_s[135:], true_s[135:] + 0.01, atol=1e-6)


def test_a_stall_that_catches_up_is_no_leap_and_keeps_the_true_times() -> None:
    jumps: list[int] = []
    times = TimeMap(on_jump=lambda: jumps.append(1))
    true_s = np.arange(200) / 30
    arrived_s = np.where((true_s > 2) & (true_s < 4), 4.0, true_s) + 0.01
    got_s = mapped(true_s, arrived_s, times)
    np.testing.assert_allclose(got_s, true_s + 0.01, atol=2e-3)
    assert not jumps


def test_a_first_packet_that_waited_long_misleads_for_a_moment_only() -> None:
    true_s = np.arange(60) / 30
    arrived_s = np.maximum(true_s, 0.4)  # what a sender had kept comes at once
    got_s = mapped(true_s, arrived_s, TimeMap())
    np.testing.assert_allclose(got_s[15:], true_s[15:], atol=1e-9)
    assert JUMP_S > 0.4


@pytest.mark.parametrize(("apart_s", "wanted_s"), [(0.0, 0.01), (3.0, 0.13), (-3.0, 0.13)])
def test_tracks_of_one_clock_are_kept_in_step_and_those_of_two_are_mapped_alone(
    apart_s: float, wanted_s: float
) -> None:
    """Sound comes 120 ms later than pictures; `apart_s` is how far its clock lies behind that of the pictures."""
    video, audio, t, seen_s, heard_s = TimeMap(), TimeMap(), 0.0, 0.0, 0.0
    for t in np.arange(0, 2, 1 / 30):
        seen_s = captured_in_step(video, audio, float(t), float(t) + 0.01)
        heard_s = captured_in_step(audio, video, float(t) - apart_s, float(t) + 0.13)
    assert seen_s == pytest.approx(t + 0.01)
    assert heard_s == pytest.approx(t + wanted_s)


def test_pictures_out_of_order_are_put_in_order_and_never_shown_backwards() -> None:
    ring = PictureRing()
    for t in (3, 1, 2, 5):
        ring.push(np.full((1, 1, 3), t, np.uint8), float(t))
    assert [(ring.take(u) or (None,))[0] for u in (0.5, 2.5, 2.6, 9.0)] == [None, 2.0, None, 5.0]
    ring.push(np.zeros((1, 1, 3), np.uint8), 4.0)
    assert ring.take(9.0) is None
    assert ring.dropped == 3, "one passed over before 2, one before 5, one too late"


def test_a_picture_sent_twice_is_kept_once_before_and_after_it_was_shown() -> None:
    ring = PictureRing()
    for _ in range(2):
        ring.push(np.zeros((1, 1, 3), np.uint8), 1.0)
    assert ring.take(2.0) is not None
    ring.push(np.zeros((1, 1, 3), np.uint8), 1.0)
    assert ring.take(2.0) is None
    assert (ring.received, ring.duplicated, ring.dropped) == (3, 2, 0)


def test_the_ring_keeps_few_pictures_however_many_come() -> None:
    ring = PictureRing(4)
    for t in range(100):
        ring.push(np.zeros((1, 1, 3), np.uint8), float(t))
    assert ring.dropped == 96
    assert ring.take(200.0) is not None


def test_blocks_whose_stamps_shake_a_little_join_without_a_seam() -> None:
    rng, signal, ring = np.random.default_rng(0), np.arange(1, 16001, dtype=np.float32), SoundRing()
    for i in range(0, 16000, 160):
        ring.write(signal[i : i + 160], 10.0 + i / SAMPLE_RATE_HZ + rng.uniform(-9e-4, 9e-4) * (i > 0))
    window, heard = ring.window(ring.end or 0, 16000)
    np.testing.assert_array_equal(window, signal)
    assert (heard, ring.gaps) == (16000, 0)


def test_a_microphone_whose_crystal_drifts_loses_or_gains_single_samples_and_stays_in_time() -> None:
    for ppm in (-300, 300):
        ring = SoundRing()
        for i in range(0, 16000 * 30, 160):
            ring.write(np.ones(160, np.float32), i / SAMPLE_RATE_HZ * (1 + ppm * 1e-6))
        wanted = 16000 * 30 * (1 + ppm * 1e-6)
        assert abs((ring.end or 0) - wanted) <= SNAP_SAMPLES
        assert ring.gaps == 0


def test_a_hole_is_zeros_and_counted_and_a_late_block_still_fills_it() -> None:
    ring, ones = SoundRing(), np.ones(1600, np.float32)
    ring.write(ones, 1.0)
    ring.write(ones, 1.2)
    window, heard = ring.window(16000 + 4800, 4800)
    assert (heard, ring.gaps) == (3200, 1)
    assert not window[1600:3200].any()
    ring.write(ones, 1.1)
    window, heard = ring.window(16000 + 4800, 4800)
    assert heard == 4800
    assert window.all()


def test_what_is_older_than_the_ring_is_long_is_gone_and_known_to_be() -> None:
    ring = SoundRing(0.5)
    ring.write(np.ones(20000, np.float32), 0.0)
    assert ring.window(20000, 800)[1] == 800
    assert ring.window(20000 - 8000, 800)[1] == 0
    ring.write(np.ones(10, np.float32), 0.1)
    assert ring.window(20000, 8000)[1] == 8000


def test_one_thread_may_write_while_another_reads() -> None:
    ring, done = SoundRing(), threading.Event()

    def writes() -> None:
        for i in range(2000):
            ring.write(np.full(160, 1.0, np.float32), i / 100)
        done.set()

    thread = threading.Thread(target=writes)
    thread.start()
    while not done.is_set():
        window, heard = ring.window(ring.end or 0, 800)
        assert heard == window.sum()
    thread.join()
