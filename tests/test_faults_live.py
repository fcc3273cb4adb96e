"""What goes wrong with cameras and microphones while they run, followed through the loop to the robot."""

import itertools
import threading

import numpy as np
import pytest
from test_faults_senses import LOUD, SPEC, Rig
from test_sources_live import START_S, Stage, steady

from deploy.sources import capture
from deploy.sources.capture import Senses
from deploy.sources.live import Join, LiveSource
from dyad.clock import FPS, SAMPLE_RATE_HZ, MonotonicClock
from dyad.media import MediaError


class Camera:
    """A camera that is pulled out after twenty pictures, is not there at the first look for it, and then comes back."""

    name, greeting, sees, hears = "camera", "", True, False

    def __init__(self) -> None:
        self.opened = self.closed = 0

    def open(self) -> None:
        self.opened += 1
        if self.opened == 2:
            raise MediaError("camera: cannot be opened (no such device); plug it in")

    def follow(self, senses: Senses, stop: threading.Event) -> None:
        for i in itertools.count():
            if stop.wait(1 / FPS):
                return
            if self.opened == 1 and i == 20:
                raise OSError(19, "No such device")
            senses.see(np.full((48, 64, 3), i % 200, np.uint8), senses.clock.now_s())

    def close(self) -> None:
        self.closed += 1


class Microphone:
    """Sound without end."""

    name, greeting, sees, hears = "microphone", "", False, True

    def open(self) -> None: ...

    def follow(self, senses: Senses, stop: threading.Event) -> None:
        while not stop.wait(0.01):
            senses.hear(LOUD[:160], senses.clock.now_s() - 0.01)

    def close(self) -> None: ...


def test_a_camera_that_is_unplugged_and_comes_back_never_stops_the_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(capture, "FIRST_PAUSE_S", 0.25)
    camera, clock = Camera(), MonotonicClock()
    source = LiveSource("both", [camera, Microphone()], SPEC, clock, max_frames=70, join=Join(hold_s=0.3, wait_s=0.005))
    rig = Rig(clock=clock, robot="null")
    source.wait_until_ready()
    rig.follow(source)
    rig.link.close(home=True)
    trace, counts = rig.loop.trace, source.counts
    flags = ["no_picture" in t.flags for t in trace.ticks]
    assert not flags[0]
    assert any(flags), "it was gone"
    assert not flags[-1], "and came back"
    gone_at = flags.index(True)
    assert "held_picture" in list(trace.ticks)[gone_at - 1].flags, "the last picture stood in for a while"
    assert counts.reconnects == 1
    assert (camera.opened, camera.closed >= 2) == (3, True)
    assert counts.frames_without_picture == sum(flags)
    assert trace.played + trace.missed_ticks >= 70, "every frame is played or counted"
    deaf = [t for t, gone in zip(trace.ticks, flags, strict=True) if gone and "no_sound" in t.flags]
    assert len(deaf) < sum(flags), "the microphone went on"
    assert source.note == "", "all is well at the end"


def test_a_microphone_that_falls_silent_leaves_the_pictures_and_is_counted() -> None:
    stage = Stage(START_S)
    source = LiveSource("stage", [], SPEC, stage, max_frames=60)
    steady(stage, source, 60, skip=range(25, 45))
    rig = Rig(clock=stage, robot="null")
    rig.follow(source)
    flags = [t.flags for t in rig.loop.trace.ticks]
    assert all("no_sound" in f for f in flags[28:44])
    assert not any("no_sound" in f for f in flags[48:])
    assert not any(sound for _, sound in rig.present[28:44])
    assert source.counts.sound_gaps >= 1
    assert source.counts.frames_without_sound == sum("no_sound" in f for f in flags)
    assert rig.loop.trace.refused_frames == 0


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_sound_that_is_no_number_reaches_the_student_as_no_sound(bad: float) -> None:
    stage = Stage(START_S)
    source = LiveSource("stage", [], SPEC, stage, max_frames=20)
    for i in range(40):
        at_s = START_S + i / 60
        block = np.full(SAMPLE_RATE_HZ // 60, bad if 10 <= i < 20 else 0.1, np.float32)
        stage.arrange(at_s + 1 / 60, lambda block=block, at_s=at_s: source.senses.hear(block, at_s))
        stage.arrange(at_s, lambda i=i, at_s=at_s: source.senses.see(np.full((48, 64, 3), i, np.uint8), at_s))
    rig = Rig(clock=stage, robot="null")
    rig.follow(source)
    broken = [t for t, tick in enumerate(rig.loop.trace.ticks) if "bad_sound" in tick.flags]
    assert len(broken) >= 5
    assert rig.loop.watcher.refused_sounds == len(broken)
    assert all(np.isfinite(i["audio"]).all() for i in rig.engine.inputs)
    assert not any(rig.present[t][1] for t in broken)
    assert rig.loop.trace.refused_frames == 0, "a broken microphone does not cost the face"
    assert rig.present[-1][1], "and is heard again when it is well"


def test_dropped_and_doubled_pictures_cost_no_plan() -> None:
    stage, rng = Stage(START_S), np.random.default_rng(4)
    source = LiveSource("stage", [], SPEC, stage, max_frames=90)
    copies = rng.choice([0, 1, 2], 90, p=[0.2, 0.6, 0.2])
    for i, number in enumerate(copies):
        captured_s, block_s = START_S + (i + 0.5) / FPS, START_S + i / FPS
        stage.arrange(block_s + 1 / FPS, lambda at_s=block_s: source.senses.hear(LOUD[:533], at_s))
        for k in range(number):
            shown = np.full((48, 64, 3), i, np.uint8)
            stage.arrange(captured_s + 0.004 * (k + 1), lambda p=shown, at_s=captured_s: source.senses.see(p, at_s))
    rig = Rig(clock=stage, robot="null")
    rig.follow(source)
    counts = source.counts
    assert rig.loop.trace.played == rig.status.counts.taken == 90
    assert counts.pictures_duplicated == np.count_nonzero(copies == 2)
    assert counts.pictures_held == pytest.approx(np.count_nonzero(copies == 0), abs=1)
    assert counts.pictures_held == sum("held_picture" in t.flags for t in rig.loop.trace.ticks)


def test_a_leap_of_the_sounds_clock_is_counted_and_both_senses_stay_in_step() -> None:
    """A sender whose sound restarts its time stamps 40 s further; its pictures do not."""
    stage = Stage(START_S)
    source = LiveSource("stage", [], SPEC, stage, max_frames=120)
    eyes, ears = source.senses.time_map(), source.senses.time_map()
    for i in range(120):
        stamp_s, arrived_s = i / FPS, START_S + (i + 1) / FPS
        leap_s = 40.0 if i >= 60 else 0.0

        def arrive(i: int = i, stamp_s: float = stamp_s, leap_s: float = leap_s) -> None:
            now_s = stage.now_s()
            source.senses.see(np.full((48, 64, 3), i, np.uint8), eyes.captured_s(stamp_s, now_s))
            block = np.full(SAMPLE_RATE_HZ // FPS, 0.1 + i / 1000, np.float32)
            source.senses.hear(block, ears.captured_s(stamp_s + leap_s, now_s))

        stage.arrange(arrived_s, arrive)
    rig = Rig(clock=stage, robot="null")
    rig.follow(source)
    assert source.counts.clock_jumps == 1
    assert rig.loop.trace.played == 120
    for t, inputs in enumerate(rig.engine.inputs):
        if 10 <= t < 58 or 80 < t < 118:
            assert abs(float(inputs["audio"][-100]) - 0.1 - t / 1000) <= 0.0021, "within two frames of the picture"
