"""The loop on a fake clock: causal, on time, counting what it skips and refusing what is unsafe."""

import dataclasses
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from deploy import robots
from deploy.calibration import Calibration
from deploy.link import LocalLink
from deploy.loop import Loop
from deploy.manifest import Manifest
from deploy.motion.states import Moment, Status
from deploy.plan import Command
from deploy.recording import Recorder, fastest
from deploy.report import print_table, summarise
from deploy.robots import Robot
from deploy.robots.null import NullRobot
from deploy.sources import Counts, Packet
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

    name, greeting, note, recording, counts = "scripted", "", "", None, Counts()
    sound = np.zeros(0, np.float32)

    def wait_until_ready(self) -> None:
        pass

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


@dataclass
class Run:
    """A run that has ended."""

    loop: Loop
    source: ScriptedSource
    recorder: Recorder
    robot: Robot
    status: Status

    @property
    def frames(self) -> list[int]:
        return [tick.frame for tick in self.loop.trace.ticks]


def run(answer: Answer, frames: int = 30, slow: dict[int, float] | None = None, robot: str = "sim") -> Run:
    ticking, body, recorder = clock.FakeClock(), robots.load(robot), Recorder(10_000)
    link = LocalLink(body, ticking, watch=recorder.add)
    loop, source = Loop(ScriptedEngine(answer), link, ticking), ScriptedSource(frames, ticking, slow)
    link.open(ticking.now_s())
    loop.run(source)
    status = link.status()
    link.close(home=False)
    return Run(loop, source, recorder, body, status)


def test_every_frame_of_an_easy_stream_becomes_one_tick() -> None:
    done = run(quiet)
    assert done.frames == list(range(30))
    assert done.loop.trace.missed_ticks == 0


def test_a_tick_that_takes_too_long_skips_frames_and_counts_them() -> None:
    done = run(quiet, slow={10: 0.21})
    assert done.loop.trace.missed_ticks == 5
    assert [f for f in range(30) if f not in done.frames] == [11, 12, 13, 14, 15]


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_an_answer_that_is_no_number_is_refused_whole_and_the_plan_before_it_is_ridden_out(bad: float) -> None:
    def answer(call: int) -> np.ndarray:
        out = np.full(SHAPE, 1.0, np.float32)
        if 20 <= call < 29:
            out[0, 3, 0] = bad
        return out

    done = run(answer, frames=40)
    when, sent = done.recorder.sent()
    assert done.loop.trace.refused_frames == 9
    assert np.isfinite(sent).all()
    during = (when > 20 * clock.FRAME_S) & (when < 38 * clock.FRAME_S)
    assert np.abs(np.diff(sent[during], axis=0)).max() < 0.01, "0.3 s without an answer move nothing"
    assert np.abs(sent[during]).max() > 0.5


def test_an_engine_that_fails_for_good_brings_the_face_home() -> None:
    done = run(lambda call: np.full(SHAPE, 3.0 if call < 30 else np.nan, np.float32), frames=90)
    when, sent = done.recorder.sent()
    assert np.abs(sent[np.searchsorted(when, 30 * clock.FRAME_S)]).max() > 0.5
    home = when[np.abs(sent).max(axis=1) > 1e-3].max()
    assert home < 31 * clock.FRAME_S + 1.5


def test_what_is_sent_stays_within_range_and_speed_for_a_jumping_engine() -> None:
    rng = np.random.default_rng(0)
    done = run(lambda _: (20 * rng.standard_normal(SHAPE)).astype(np.float32), frames=90)
    when, sent = done.recorder.sent()
    assert np.abs(sent).max() <= 1
    assert fastest(when, sent, done.robot.calibration.limits[0])[1] <= 1 + 1e-6
    assert np.abs(np.diff(sent, axis=0)).max() > 0.02, "it moved at all"


class Coarse(NullRobot):
    """Rounds to fifths, and lets two of three commands through."""

    def send(self, command: Command, now_s: float) -> Command:
        if command.seq and int(60 * now_s + 0.5) % 3 == 2:
            return self.last
        self.last = dataclasses.replace(command, shares=np.round(5 * command.shares) / 5)
        return self.last


def test_a_robot_that_rounds_or_holds_back_breaks_no_limit_and_its_rounding_is_told(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(robots, "load", lambda _: Coarse(Calibration.load("sim")))
    rng = np.random.default_rng(0)
    done = run(lambda _: (20 * rng.standard_normal(SHAPE)).astype(np.float32), frames=90)
    report = summarise(
        done.loop, done.source, done.status, done.recorder, done.robot.calibration, ended="the source ended", config={}
    )
    when, sent = done.recorder.sent()
    assert fastest(when, sent, done.robot.calibration.limits[0])[1] > 1.5, "steps of a fifth look like leaps"
    assert 0.3 < report["fastest_of_limit"] <= 1 + 1e-6
    assert report["rounded_by_up_to"] == pytest.approx(0.1, abs=0.01)
    assert report["commands"] < 0.8 * report["controller"]["counts"]["ticks"]
    print_table(report)
    assert "the robot rounds by up to 10 % of a travel" in capsys.readouterr().out


def test_where_a_robot_was_lost_or_let_go_no_speed_is_reckoned_across() -> None:
    recorder, limit = Recorder(100), np.array([1.0])
    for k, (state, told) in enumerate(
        [("following", 0.0), ("following", 0.01), ("lost", 0.02), ("lost", None), ("following", 0.9), ("neutral", 0.91)]
    ):
        shares = None if told is None else np.array([told])
        recorder.add(Moment(k / 60, k / 60, np.zeros(1), np.zeros(1), None, state, shares))
    assert [len(when) for when, _ in recorder.paths()] == [2, 2]
    assert max(fastest(*path, limit)[1] for path in recorder.paths()) == pytest.approx(0.6)


def test_a_delay_that_was_measured_while_nobody_was_followed_is_not_told(capsys: pytest.CaptureFixture[str]) -> None:
    done = run(quiet)
    for state in ("following", "holding", "neutral", "stopped"):
        status = dataclasses.replace(done.status, state=state, glass_to_motor_s=0.373)
        report = summarise(
            done.loop, done.source, status, done.recorder, done.robot.calibration, ended="the source ended", config={}
        )
        print_table(report)
        said = capsys.readouterr().out
        assert report["glass_to_motor_ms"] == (373.0 if state == "following" else None)
        assert ("glass to motor 373 ms" in said) == (state == "following")
        assert ("glass to motor unknown: nobody was followed at the end" in said) == (state != "following")


def test_what_the_motors_lose_is_looked_ahead_over() -> None:
    def waving(call: int) -> np.ndarray:
        phases = (call + np.array(SPEC.horizons)) / 40
        out = np.full(SHAPE, -4.0, np.float32)
        out[..., 0] = 3.0 * np.sin(2 * np.pi * phases)[:, None]
        return out

    status = run(waving, frames=300).status
    assert status.measured
    assert status.motor_lag_s > 0.04
    assert status.compensated_s == pytest.approx(status.glass_to_motor_s, abs=0.5 * clock.FRAME_S)


def test_the_report_holds_every_promised_figure() -> None:
    done = run(quiet)
    report = summarise(
        done.loop, done.source, done.status, done.recorder, done.robot.calibration, ended="the source ended", config={}
    )
    wanted = {"ticks", "missed_ticks", "face_share", "stages", "glass_to_motor_ms", "compensated_ms", "engine", "ended"}
    assert wanted <= set(report)
    assert {"p50_ms", "p95_ms", "p99_ms"} == set(report["stages"]["total"])
    assert json.loads(json.dumps(report, allow_nan=False)) == report


def test_a_run_that_ended_before_its_first_frame_is_reported_too(capsys: pytest.CaptureFixture[str]) -> None:
    done = run(quiet, frames=0)
    report = summarise(
        done.loop, done.source, done.status, done.recorder, done.robot.calibration, ended="SIGTERM", config={}
    )
    print_table(report)
    assert "0 ticks" in capsys.readouterr().out


def test_a_long_run_keeps_its_counts_and_forgets_its_old_ticks() -> None:
    ticking, body = clock.FakeClock(), robots.load("null")
    link = LocalLink(body, ticking)
    loop = Loop(ScriptedEngine(quiet), link, ticking, keep_frames=10)
    link.open(0.0)
    loop.run(ScriptedSource(50, ticking))
    assert loop.trace.played == 50
    assert [tick.frame for tick in loop.trace.ticks] == list(range(40, 50))


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
