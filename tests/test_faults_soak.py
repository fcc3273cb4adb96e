"""Nothing grows: two minutes of the loop on a clock of its own, with every kind of trouble in them.

The half hour is `python -m benchmarks.soak`; this is the same promise where a test can keep it, by counting what every
container within reach of the loop holds.
"""

import collections
import gc
from pathlib import Path
from typing import Any

import numpy as np
import tiny_engine
from numpy.typing import NDArray
from test_sources_live import START_S, Stage
from toy_robot import ToyRobot

from benchmarks.soak import memory_mb
from deploy.link import LocalLink
from deploy.loop import Loop
from deploy.recording import Recorder
from deploy.report import summarise
from deploy.safety.black_box import BlackBox
from deploy.sources.live import LiveSource
from deploy.timing import StageTimes
from dyad.clock import FPS, SAMPLE_RATE_HZ
from student.spec import StudentSpec

SPEC = StudentSpec()
MINUTE = 60 * FPS
KEEP_FRAMES = 300
CONTAINERS = (list, dict, set, tuple, collections.deque)
OURS = ("deploy", "student", "dyad")


class Weather(Stage):
    """Senses that come one by one, mostly well; now and then one is late, lost, doubled or broken, by the seed."""

    def __init__(self) -> None:
        super().__init__(START_S)
        self.rng, self.next = np.random.default_rng(0), 0
        self.source = LiveSource("weather", [], SPEC, self, max_frames=2 * MINUTE)
        self.pictures = self.rng.integers(0, 255, (8, 48, 64, 3), np.uint8)
        self.sound = self.rng.normal(0, 0.1, SAMPLE_RATE_HZ // FPS).astype(np.float32)

    def sleep_until(self, time_s: float) -> None:
        while (at_s := START_S + self.next / FPS) <= time_s:
            self._send(at_s)
            self.next += 1
        super().sleep_until(time_s)

    def _send(self, at_s: float) -> None:
        kind, senses = self.rng.random(), self.source.senses
        late_s = 0.004 if kind > 0.05 else 0.12
        picture, broken = self.pictures[self.next % 8], np.full_like(self.sound, np.nan)
        for _ in range(0 if kind > 0.97 else 2 if kind > 0.94 else 1):
            self.arrange(at_s + late_s, lambda: senses.see(picture, at_s))
        if not 0.90 < kind < 0.93:
            sound = broken if 0.88 < kind < 0.90 else self.sound
            self.arrange(at_s + 1 / FPS + late_s, lambda: senses.hear(sound, at_s))


def lengths(name: str, thing: Any, seen: set[int], found: collections.Counter[str]) -> None:
    """How much the containers of our own objects hold together, by their place; bounded deques are bounded."""
    if id(thing) in seen:
        return
    seen.add(id(thing))
    if isinstance(thing, CONTAINERS):
        found[name] += 0 if isinstance(thing, collections.deque) and thing.maxlen else len(thing)
        for inside in [*(thing.values() if isinstance(thing, dict) else thing)]:
            lengths(f"{name}[]", inside, seen, found)
    elif type(thing).__module__.split(".")[0] in OURS and not isinstance(thing, type):
        for attribute, inside in vars(thing).items():
            lengths(f"{name}.{attribute}", inside, seen, found)


class Life:
    """A loop as `deploy.run` builds it, around a robot whose wire breaks and an engine that sometimes fails."""

    def __init__(self, folder: Path) -> None:
        self.weather, self.robot, self.times = Weather(), ToyRobot(), StageTimes()
        calibration = self.robot.calibration
        self.recorder = Recorder(KEEP_FRAMES)
        self.box = BlackBox(folder, self.weather, robot="toy", channels=calibration.names, rate_hz=calibration.rate_hz)
        self.link = LocalLink(self.robot, self.weather, watch=self.recorder.add, times=self.times.add, box=self.box)
        self.engine = tiny_engine.FakeEngine(self._answer, SPEC)
        self.loop = Loop(self.engine, self.link, self.weather, times=self.times, keep_frames=KEEP_FRAMES)
        self.looks: list[tuple[float, collections.Counter[str]]] = []

    def _answer(self, step: int, _: Any) -> NDArray[np.float32]:
        self.engine.inputs[step] = {}  # a test's memory is not the loop's
        self.robot.broken = step % 500 > 470
        self.robot.sent = self.robot.sent[-100:]
        if step in (MINUTE + 20, 2 * MINUTE - 20):
            self._look()
        broken = step % 97 > 90
        return tiny_engine.logits(SPEC, np.nan if broken else 0.5 + 0.4 * np.sin(step / 9))

    def _look(self) -> None:
        gc.collect()
        found = collections.Counter[str]()
        lengths("loop", self.loop, {id(self.engine), id(self.robot)}, found)
        lengths("source", self.weather.source, {id(self.weather)}, found)
        lengths("recorder", self.recorder, set(), found)
        lengths("box", self.box, set(), found)
        self.looks.append((memory_mb(), found))


def test_in_two_minutes_of_trouble_nothing_grows_and_every_frame_is_accounted_for(tmp_path: Path) -> None:
    life = Life(tmp_path / "box")
    life.link.open(life.weather.now_s())
    life.loop.run(life.weather.source)
    (before_mb, before), (after_mb, after) = life.looks
    assert after_mb - before_mb < 5, "megabytes in the second minute"
    assert {"loop.trace.ticks", "loop.link.heart.tick_ms", "source.senses.pictures._times"} <= set(after)
    assert {name: (before[name], n) for name, n in after.items() if n > before[name] + 200} == {}
    trace, source = life.loop.trace, life.weather.source
    report = summarise(
        life.loop, source, life.link.status(), life.recorder, life.robot.calibration, ended="", config={}
    )
    counts = report["controller"]["counts"]
    assert trace.played + trace.missed_ticks == 2 * MINUTE
    assert counts["taken"] + counts["late"] + counts["old"] + counts["refused"] == trace.played - trace.refused_frames
    assert counts["lost"] == counts["reconnects"] == 2 * MINUTE // 500
    assert trace.refused_frames > 100
    assert len(trace.ticks) == KEEP_FRAMES
    assert source.counts.pictures_duplicated > 0
    assert source.counts.pictures_held > 0
    assert life.loop.watcher.refused_sounds > 0
    assert report["share_min"] >= -1
    assert report["share_max"] <= 1
