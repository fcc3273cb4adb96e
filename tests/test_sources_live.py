"""Live senses join on the 30 Hz grid: nothing from the future, nothing staler than it must be, nothing that stops."""

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from deploy.sources import Packet
from deploy.sources.live import Join, LiveSource
from dyad.clock import FPS, SAMPLE_RATE_HZ, FakeClock, audio_end, samples_until
from student.spec import StudentSpec

SPEC = StudentSpec()
START_S = 1000.0
FIRST = int(START_S * SAMPLE_RATE_HZ)
SECONDS = 5
SIGNAL = np.arange(1, (SECONDS + 1) * SAMPLE_RATE_HZ, dtype=np.float32)
"""Every sample names its own index, so that a window tells exactly what it holds."""


class Stage(FakeClock):
    """A clock on which things arrive: each at its time, while someone sleeps past it."""

    def __init__(self, start_s: float) -> None:
        super().__init__(start_s)
        self._coming: list[tuple[float, Callable[[], None]]] = []

    def arrange(self, at_s: float, arrive: Callable[[], None]) -> None:
        self._coming.append((at_s, arrive))

    def sleep_until(self, time_s: float) -> None:
        self._coming.sort(key=lambda event: event[0])
        while self._coming and self._coming[0][0] <= time_s:
            at_s, arrive = self._coming.pop(0)
            super().sleep_until(at_s)
            arrive()
        super().sleep_until(time_s)


def picture(i: int) -> NDArray[np.uint8]:
    """A picture that names its number."""
    return np.full((2, 2, 3), i, np.uint8)


def opened(stage: Stage, join: Join | None = None, max_frames: int | None = None) -> LiveSource:
    return LiveSource("stage", [], SPEC, stage, max_frames=max_frames, join=join)


def show(stage: Stage, source: LiveSource, i: int, captured_s: float, arrived_s: float) -> None:
    stage.arrange(arrived_s, lambda: source.senses.see(picture(i), captured_s))


def sound(stage: Stage, source: LiveSource, first: int, length: int, arrived_s: float) -> None:
    block = SIGNAL[first : first + length]
    stage.arrange(arrived_s, lambda: source.senses.hear(block, START_S + first / SAMPLE_RATE_HZ))


def played(stage: Stage, source: LiveSource, frames: int) -> list[tuple[float, Packet]]:
    """What the loop would read: each packet and when it had it."""
    source.start(START_S)
    out = []
    for t in range(frames):
        stage.sleep_until(source.due_s(t))
        packet = source.read(t)
        assert packet is not None
        out.append((stage.now_s(), packet))
    return out


def steady(stage: Stage, source: LiveSource, frames: int, late_s: float = 0.005, skip: range = range(0)) -> None:
    """A good camera and a good microphone, silent and blind while the frames of `skip` last."""
    for i in range(frames):
        if i not in skip:
            end_s = START_S + (i + 0.9) / FPS
            show(stage, source, i, end_s, end_s + late_s)
            first, stop = samples_until(i), samples_until(i + 1)
            sound(stage, source, first, stop - first, START_S + stop / SAMPLE_RATE_HZ + late_s)


def shown(packet: Packet) -> int:
    assert packet.picture is not None
    return int(packet.picture[0, 0, 0])


def test_a_steady_stream_is_joined_frame_by_frame_without_a_flag() -> None:
    stage = Stage(START_S)
    source = opened(stage)
    steady(stage, source, 45)
    packets = [packet for _, packet in played(stage, source, 45)]
    assert [shown(p) for p in packets[1:]] == list(range(1, 45)), "a sense that never gave anything is not waited for"
    assert all(p.flags == () for p in packets[2:])  # the first window reaches back before there was sound
    assert source.counts.pictures == 45
    assert source.counts.pictures_dropped == 1, "the very first came after its frame was read"
    assert source.counts.sound_gaps == 0


arrivals = st.lists(
    st.tuples(st.floats(-0.012, 0.012), st.floats(0.0, 0.25), st.integers(0, 2)), min_size=40, max_size=40
)


@settings(max_examples=60, deadline=None)
@given(arrivals)
def test_whatever_jitter_loss_and_doubling_the_nearest_past_picture_is_shown(
    pictures: list[tuple[float, float, int]],
) -> None:
    stage = Stage(START_S)
    source = opened(stage)
    sent = []
    for i, (jitter_s, delay_s, copies) in enumerate(pictures):
        captured_s = START_S + i / FPS + jitter_s
        for copy in range(copies):  # 0 lost, 2 doubled
            arrived_s = max(captured_s, START_S) + delay_s + 0.01 * copy
            sent.append((arrived_s, captured_s, i))
            show(stage, source, i, captured_s, arrived_s)
    latest = (-np.inf, -1)
    for had_s, packet in played(stage, source, 45):
        end_s = packet.captured_at_s
        past = [(captured_s, i) for arrived_s, captured_s, i in sent if arrived_s <= had_s and captured_s <= end_s]
        latest = max([latest, *past])
        assert (packet.picture is None) == (end_s - latest[0] > 1.0)
        if packet.picture is not None:
            assert shown(packet) == latest[1]
    counts = source.counts
    assert counts.pictures <= len(sent)
    assert counts.pictures_duplicated <= sum(copies == 2 for _, _, copies in pictures)


blocks = st.lists(st.tuples(st.integers(80, 640), st.floats(0.0, 0.25), st.integers(0, 2)), min_size=60, max_size=60)


@settings(max_examples=60, deadline=None)
@given(blocks)
def test_the_window_equals_the_cut_of_the_whole_sound_with_zeros_where_nothing_came(
    sizes: list[tuple[int, float, int]],
) -> None:
    stage = Stage(START_S)
    source = opened(stage)
    first, sent = 0, []
    for length, delay_s, copies in sizes:
        stop_s = START_S + (first + length) / SAMPLE_RATE_HZ
        for copy in range(copies):
            sent.append((stop_s + delay_s + 0.01 * copy, first, first + length))
            sound(stage, source, first, length, sent[-1][0])
        first += length
    for had_s, packet in played(stage, source, 30):
        stop = audio_end(packet.frame)
        whole = np.zeros(stop, np.float32)
        for arrived_s, begin, end in sent:
            if arrived_s <= had_s:
                whole[begin:end] = SIGNAL[begin:end][: max(stop - begin, 0)]
        expected = np.concatenate([np.zeros(800, np.float32), whole])[-800:]
        np.testing.assert_array_equal(packet.audio, expected)
        assert packet.audio.max() <= stop, "a sample from after the frame's end"
        assert ("no_sound" in packet.flags) == (not expected.any())


def test_no_picture_and_no_sample_from_after_the_frames_end_reaches_a_packet_even_if_it_is_there() -> None:
    stage = Stage(START_S + 1.0)
    source = opened(stage)
    source.start(START_S)
    for i in range(16):
        source.senses.see(picture(i), START_S + i / FPS)
    source.senses.hear(SIGNAL[:16000], START_S)
    for t in (0, 7, 14):
        packet = source.read(t)
        assert packet is not None
        assert shown(packet) == t + 1, "the picture of the instant at which the frame ends"
        assert packet.audio.max() == audio_end(t)


def test_a_stamp_from_the_future_is_a_mistake_and_becomes_now() -> None:
    stage = Stage(START_S)
    source = opened(stage)
    source.senses.see(picture(1), START_S + 50)
    source.senses.hear(SIGNAL[:800], START_S + 50)
    assert source.senses.pictures.newest_s == START_S
    assert source.senses.sound.end == FIRST


def test_a_read_never_blocks_longer_than_its_wait_nor_falls_further_behind_than_its_bound() -> None:
    join = Join(wait_s=0.02, behind_s=0.1)
    stage = Stage(START_S)
    source = opened(stage, join)
    rng = np.random.default_rng(0)
    for i in range(60):
        captured_s = START_S + i / FPS
        show(stage, source, i, captured_s, captured_s + rng.uniform(0, 0.4))
    source.start(START_S)
    for t in range(60):
        stage.sleep_until(source.due_s(t))
        due_s = source.due_s(t)
        source.read(t)
        assert stage.now_s() <= due_s + join.wait_s + 1e-9
        assert stage.now_s() <= START_S + (t + 1) / FPS + join.behind_s + 1e-9


def test_a_late_loop_does_not_wait_at_all() -> None:
    stage = Stage(START_S)
    source = opened(stage)
    steady(stage, source, 10)
    played(stage, source, 10)
    stage.sleep_until(source.due_s(30))
    before_s = stage.now_s()
    assert source.read(20) is not None
    assert stage.now_s() == before_s


def test_the_lag_follows_how_late_the_senses_come_and_no_frame_is_held_then() -> None:
    stage = Stage(START_S)
    source = opened(stage)
    steady(stage, source, 120, late_s=0.06)
    packets = [packet for _, packet in played(stage, source, 120)]
    assert source.due_s(0) - START_S - 1 / FPS == pytest.approx(0.06, abs=0.002)
    assert all(p.flags == () for p in packets[80:])
    assert [shown(p) for p in packets[80:]] == list(range(80, 120))
    assert packets[100].captured_at_s == pytest.approx(START_S + 101 / FPS), "told as when it ended, not as when read"


def test_the_last_picture_is_held_for_a_second_and_then_there_is_none() -> None:
    stage = Stage(START_S)
    source = opened(stage)
    steady(stage, source, 120, skip=range(30, 90))
    flags = [packet.flags for _, packet in played(stage, source, 120)]
    assert all("held_picture" in f for f in flags[31:58])
    assert all(f == ("no_picture", "no_sound") for f in flags[62:89])
    assert all(f == () for f in flags[93:])
    counts = source.counts
    assert counts.pictures_held + counts.frames_without_picture == pytest.approx(60, abs=2)
    assert counts.sound_gaps == 1


def test_sound_goes_on_when_the_camera_is_gone_and_pictures_when_the_microphone_is() -> None:
    stage = Stage(START_S)
    deaf, blind = opened(stage), opened(stage)
    for i in range(30):
        end_s = START_S + (i + 0.9) / FPS
        show(stage, deaf, i, end_s, end_s)
        sound(stage, blind, samples_until(i), samples_until(i + 1) - samples_until(i), end_s + 0.01)
    deaf.start(START_S)
    blind.start(START_S)
    for t in range(30):
        stage.sleep_until(deaf.due_s(t) + 0.01)
        seen, heard = deaf.read(t), blind.read(t)
        assert seen is not None
        assert heard is not None
        assert (shown(seen), seen.flags) == (t, ("no_sound",))
        assert heard.flags[0] == "no_picture"
        assert heard.audio.max() == audio_end(t)


def test_a_camera_twice_as_fast_is_thinned_out_and_one_half_as_fast_is_held() -> None:
    for rate, held, dropped in ((60, 0, 30), (15, 15, 0)):
        stage = Stage(START_S)
        source = opened(stage)
        for i in range(rate):
            captured_s = START_S + (i + 0.1) / rate
            show(stage, source, i, captured_s, captured_s)
        played(stage, source, 30)
        assert source.counts.pictures_held == pytest.approx(held, abs=1)
        assert source.counts.pictures_dropped == pytest.approx(dropped, abs=1)


def test_what_was_captured_before_the_start_is_not_counted() -> None:
    stage = Stage(START_S)
    source = opened(stage)
    for i in range(10):
        source.senses.see(picture(i), START_S - 1 + i / FPS)
    source.start(START_S)
    source.read(0)
    assert source.counts.pictures == source.counts.pictures_dropped == 0


def test_a_limit_of_frames_ends_a_stream_that_has_no_end_of_its_own() -> None:
    stage = Stage(START_S)
    source = opened(stage, max_frames=3)
    source.start(START_S)
    assert [source.read(t) is not None for t in range(5)] == [True, True, True, False, False]


def test_nothing_ready_is_waited_for_a_few_seconds_only() -> None:
    class Deaf:
        name, greeting, sees, hears = "deaf", "", True, True

        def open(self) -> None: ...

        def follow(self, senses: object, stop: object) -> None:
            stop.wait()  # type: ignore[attr-defined]

        def close(self) -> None: ...

    stage = Stage(START_S)
    source = LiveSource("deaf", [Deaf()], SPEC, stage)
    source.wait_until_ready()
    assert stage.now_s() - START_S == pytest.approx(4.0, abs=0.1)
    source.close()


@pytest.mark.parametrize("options", [{"wait_s": 0.05}, {"wait_s": -0.01}, {"behind_s": 2.0}, {"hold_s": -1.0}])
def test_a_join_that_would_stall_the_loop_is_refused(options: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="wait_s"):
        Join(**options)
