"""The loop on a fake clock: causal, on time, counting what it skips and refusing what is unsafe."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from deploy import robots
from deploy.loop import Loop
from deploy.manifest import Manifest
from deploy.motion.latency import SLEW_PER_S
from deploy.report import summarise
from deploy.sources import Packet
from deploy.sources.file import FileSource
from dyad import clock, media
from student.frontend import audio_window
from student.spec import StudentSpec

SPEC = StudentSpec()
SHAPE = (len(SPEC.horizons), len(SPEC.au_names), 2)
Answer = Callable[[int], np.ndarray]


class ScriptedEngine:
    """An engine whose answers are given: the loop is under test, not the student."""

    name = "scripted"

    def __init__(self, answer: Answer) -> None:
        self.answer, self.calls = answer, 0
        self.manifest = Manifest(
            runtime="none", model="", model_sha256="", precision="float32", flavour="", spec=SPEC, states={"s": (1,)},
            stays_float=(), parity={}, device={}, run={},
        )  # fmt: skip

    def init_state(self) -> dict[str, np.ndarray]:
        return {"s": np.zeros((1, 1), np.float32)}

    def step(self, inputs: dict, state: dict) -> tuple[np.ndarray, dict]:
        assert inputs["frame_u8"].shape == (SPEC.crop_px, SPEC.crop_px, 3)
        assert inputs["audio"].shape == (SPEC.audio_window_samples,)
        self.calls += 1
        return self.answer(self.calls - 1), state


class ScriptedSource:
    """Frames from nowhere, on the clock's time; `slow` maps a frame to seconds that the tick loses."""

    name = "scripted"

    def __init__(self, frames: int, ticking: clock.FakeClock, slow: dict[int, float] | None = None) -> None:
        self.frames, self.clock, self.slow, self.start_s = frames, ticking, slow or {}, 0.0

    def start(self, at_s: float) -> None:
        self.start_s = at_s

    def due_s(self, frame: int) -> float:
        return self.start_s + (frame + 1) / clock.FPS

    def read(self, frame: int) -> Packet | None:
        if frame >= self.frames:
            return None
        assert self.clock.now_s() >= self.due_s(frame) - 1e-9, "a frame was handed out before it ended"
        self.clock.advance(self.slow.get(frame, 0.0))
        return Packet(frame, self.due_s(frame), np.zeros((60, 80, 3), np.uint8), np.zeros(800, np.float32))

    def close(self) -> None:
        pass


def quiet(_call: int) -> np.ndarray:
    return np.full(SHAPE, -4.0, np.float32)


def run(answer: Answer, frames: int = 30, slow: dict[int, float] | None = None, robot: str = "sim") -> Loop:
    ticking, body = clock.FakeClock(), robots.load(robot)
    body.open()
    loop = Loop(ScriptedEngine(answer), body, ticking)
    loop.run(ScriptedSource(frames, ticking, slow))
    return loop


def test_every_frame_of_an_easy_stream_becomes_one_tick() -> None:
    trace = run(quiet).trace
    assert trace.frames == list(range(30))
    assert trace.missed_ticks == 0


def test_a_tick_that_takes_too_long_skips_frames_and_counts_them() -> None:
    trace = run(quiet, slow={10: 0.21}).trace
    assert trace.missed_ticks == 5
    assert [f for f in range(30) if f not in trace.frames] == [11, 12, 13, 14, 15]


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_an_answer_that_is_no_number_is_refused_whole_and_the_last_pose_held(bad: float) -> None:
    def answer(call: int) -> np.ndarray:
        out = np.full(SHAPE, 1.0, np.float32)
        if call >= 20:
            out[0, 3, 0] = bad
        return out

    trace = run(answer).trace
    sent = np.array(trace.sent)
    assert trace.refused_frames == 10
    assert np.isfinite(sent).all()
    np.testing.assert_allclose(sent[-1], sent[-3], atol=1e-3)


def test_what_is_sent_stays_within_range_and_speed_for_a_jumping_engine() -> None:
    rng = np.random.default_rng(0)
    loop = run(lambda _: (20 * rng.standard_normal(SHAPE)).astype(np.float32), frames=90)
    sent, limits = np.array(loop.trace.sent), loop.robot.calibration
    assert sent.min() >= 0
    assert sent.max() <= 1
    assert np.abs(np.diff(sent, axis=0)).max() <= limits.velocity_per_s / clock.FPS + 1e-6


def test_the_measured_motor_lag_is_compensated_by_the_look_ahead() -> None:
    def waving(call: int) -> np.ndarray:
        return np.full(SHAPE, 3.0 * np.sin(2 * np.pi * call / 40), np.float32)

    loop = run(waving, frames=300)
    lag_s = loop.delay.motor_lag_s
    assert loop.robot.calibration.dead_time_s < lag_s < 0.25
    wanted_s = min(lag_s + 0.5 * clock.FRAME_S, 8 * clock.FRAME_S)
    assert loop.delay.look_ahead_s == pytest.approx(wanted_s, abs=clock.FRAME_S)
    assert np.abs(np.diff(loop.trace.look_ahead_s)).max() <= SLEW_PER_S / clock.FPS + 1e-9


def test_the_report_holds_every_promised_figure() -> None:
    report = summarise(run(quiet, robot="null"), "clip", {})
    wanted = {"ticks", "missed_ticks", "face_share", "stages", "glass_to_motor_ms", "compensated_ms", "engine"}
    assert wanted <= set(report)
    assert {"p50_ms", "p95_ms", "p99_ms"} == set(report["stages"]["total"])


def test_a_file_is_heard_up_to_the_end_of_the_frame_and_not_further(tmp_path: Path) -> None:
    sound = np.zeros(16000, np.float32)
    sound[8000:] = 0.5
    frames = [np.full((32, 32, 3), 8 * t, np.uint8) for t in range(30)]
    media.write_video(tmp_path / "a.mp4", frames)
    media.write_wav(tmp_path / "a.wav", sound)
    source = FileSource(tmp_path / "a.mp4", SPEC, audio=tmp_path / "a.wav")
    source.start(0.0)
    for t in range(30):
        packet = source.read(t)
        assert packet is not None
        np.testing.assert_array_equal(packet.audio, audio_window(source.sound, t, SPEC))
        assert packet.audio.any() == (clock.audio_end(t) > 8000)
    assert source.read(30) is None
    source.close()


def test_skipping_ahead_in_a_file_drops_the_frames_in_between(tmp_path: Path) -> None:
    media.write_video(tmp_path / "a.mp4", [np.full((32, 32, 3), 8 * t, np.uint8) for t in range(20)])
    source = FileSource(tmp_path / "a.mp4", SPEC)
    packet = source.read(12)
    assert packet is not None
    assert packet.frame == 12
    source.close()


def test_a_missing_source_is_refused_in_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(media.MediaError, match="no such file"):
        FileSource(tmp_path / "nothing.mp4", SPEC)
