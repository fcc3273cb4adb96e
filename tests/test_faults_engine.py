"""What goes wrong with the student's engine or the machine under it: refused by name, or counted and ridden out."""

import dataclasses
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny_engine
from conftest import REPOSITORY
from numpy.typing import NDArray
from test_loop import ScriptedSource

from deploy import robots, run
from deploy.link import LocalLink
from deploy.loop import Loop
from deploy.manifest import Manifest
from deploy.recording import Recorder
from deploy.report import summarise
from deploy.robots.sim import SimRobot
from deploy.safety.black_box import BlackBox
from dyad.clock import FPS, FRAME_S, FakeClock
from student.spec import StudentSpec

SPEC = StudentSpec()
STRONG = tiny_engine.logits(SPEC, 0.9)
NO_NUMBER = "an answer of the engine is not finite or out of range"
Step = tuple[NDArray[np.float32], dict[str, NDArray[Any]]]


class Engine(tiny_engine.FakeEngine):
    """Answers well; `spoil` may break or delay step n."""

    def __init__(self, spoil: Callable[[int, Step], Step]) -> None:
        super().__init__(lambda *_: STRONG, SPEC)
        self._spoil = spoil

    def step(self, inputs: dict[str, Any], state: dict[str, NDArray[Any]]) -> Step:
        return self._spoil(len(self.inputs), super().step(inputs, state))


class Rig:
    """A loop to the simulated head on a clock of its own."""

    def __init__(self, spoil: Callable[[int, Step], Step], folder: Path) -> None:
        self.clock, self.recorder = FakeClock(), Recorder(10_000)
        self.engine = Engine(spoil)
        robot, names = robots.load("sim"), robots.load("sim").calibration.names
        self.box = BlackBox(folder, self.clock, robot="sim", channels=names, rate_hz=robot.calibration.rate_hz)
        self.link = LocalLink(robot, self.clock, watch=self.recorder.add, box=self.box)
        self.loop = Loop(self.engine, self.link, self.clock)

    def follow(self, frames: int) -> dict[str, Any]:
        """So many frames; the report."""
        source: Any = ScriptedSource(frames, self.clock)
        self.link.open(self.clock.now_s())
        self.loop.run(source)
        calibration = self.link.robot.calibration
        return summarise(
            self.loop, source, self.link.status(), self.recorder, calibration, ended="the source ended", config={}
        )

    def faults(self) -> list[str]:
        """What the black box that is written by now says."""
        path = self.box.write_due(float("inf"))
        lines = [] if path is None else path.read_text(encoding="utf8").splitlines()
        return [row["text"] for row in map(json.loads, lines) if row.get("event") == "fault"]


# ---- answers -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("where", ["answer", "memory"])
def test_a_number_that_is_none_is_refused_whole_counted_and_forgotten(bad: float, where: str, tmp_path: Path) -> None:
    def spoil(step: int, good: Step) -> Step:
        answer, state = good[0].copy(), {k: v.copy() for k, v in good[1].items()}
        if step == 20:
            (answer if where == "answer" else state["steps"])[0, 0] = bad
        return answer, state

    rig = Rig(spoil, tmp_path)
    report = rig.follow(60)
    assert report["refused_frames"] == 1
    assert rig.engine.starts == 2, "a poisoned memory is not kept"
    assert report["controller"]["counts"]["taken"] == 59
    when, sent = rig.recorder.sent()
    assert np.isfinite(sent).all()
    after = when > 12 * FRAME_S  # long before step 20: the face is where it was told
    assert np.abs(np.diff(sent[after], axis=0)).max() < 0.01, "the pose before is ridden on"
    assert rig.faults() == [NO_NUMBER]


def test_an_engine_that_never_answers_well_again_leaves_the_face_neutral_in_its_time(tmp_path: Path) -> None:
    rig = Rig(lambda step, good: (good[0] * np.float32(np.nan if step > 30 else 1), good[1]), tmp_path)
    report = rig.follow(90)
    when, sent = rig.recorder.sent()
    last_plan_s = 32 * FRAME_S
    assert report["refused_frames"] == 59
    assert np.abs(sent[when < last_plan_s]).max() > 0.5
    assert np.abs(sent[when > last_plan_s + 1.5]).max() < 1e-3
    assert report["controller"]["state"] == "neutral"
    assert rig.faults() == [NO_NUMBER, "no plans: the loop fell silent"], "said once, not at every frame"


# ---- speed -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("takes_s", [0.05, 0.1, 0.3])
def test_an_engine_slower_than_real_time_has_ticks_skipped_never_queued(takes_s: float, tmp_path: Path) -> None:
    rig: Rig

    def slow(_: int, good: Step) -> Step:
        rig.clock.advance(takes_s)
        return good

    rig = Rig(slow, tmp_path)
    report = rig.follow(150)
    ticks = list(rig.loop.trace.ticks)
    assert report["ticks"] == pytest.approx(150 * FRAME_S / takes_s, abs=3)
    passed = ticks[-1].frame + 1
    assert passed <= report["ticks"] + report["missed_ticks"] < passed + takes_s * FPS + 1, "played or counted"
    assert report["late_ticks"] == report["ticks"]
    waits_s = [t.delivered_at_s - t.captured_at_s - takes_s for t in ticks]
    assert max(waits_s) <= FRAME_S + 1e-9, "what is thought about is never older than the frame before"
    assert report["stages"]["total"]["p99_ms"] == pytest.approx(1000 * takes_s, rel=0.02), "and p99 says so"
    _, sent = rig.recorder.sent()
    assert np.isfinite(sent).all()
    assert report["fastest_of_limit"] <= 1 + 1e-6


BUSY = "import os\nos.sched_setaffinity(0, {cores})\nprint('busy', flush=True)\nwhile True: sum(range(10000))"


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux lets a process choose its core")
def test_with_one_core_taken_every_frame_is_played_or_counted(tmp_path: Path) -> None:
    """The loop shares one core with a process that never rests; how many frames that costs is the machine's affair."""
    core = {min(os.sched_getaffinity(0))}
    hog = subprocess.Popen([sys.executable, "-c", BUSY.format(cores=core)], stdout=subprocess.PIPE, text=True)
    try:
        assert hog.stdout is not None
        assert hog.stdout.readline() == "busy\n"
        where = tmp_path / "run.json"
        code = (
            f"import os, sys\nos.sched_setaffinity(0, {core})\nfrom deploy import run\nsys.exit(run.main(sys.argv[1:]))"
        )
        flags = ["--robot", "--no-video", "--seconds", "2", "--report", where, "--black-box", tmp_path / "box"]
        line = [sys.executable, "-c", code, *map(str, flags)]
        done = subprocess.run(line, cwd=REPOSITORY, capture_output=True, text=True, check=False, timeout=120)
    finally:
        hog.kill()
        hog.communicate()
    assert done.returncode == 0, done.stderr
    report = json.loads(where.read_text(encoding="utf8"))
    assert report["ticks"] + report["missed_ticks"] >= 2 * FPS, "played + missed = due"
    counts = report["controller"]["counts"]
    assert counts["taken"] + counts["late"] + counts["refused"] + counts["old"] == report["ticks"]
    assert counts["refused"] == counts["old"] == 0
    assert report["fastest_of_limit"] <= 1 + 1e-6, "no limit is broken to catch up"


# ---- what does not belong together -------------------------------------------------------------------------


@pytest.fixture
def untouched(monkeypatch: pytest.MonkeyPatch) -> None:
    """The robot may not even be opened."""

    def never(_: SimRobot) -> None:
        raise AssertionError("the robot was opened")

    monkeypatch.setattr(SimRobot, "open", never)


def change(folder: Path, **fields: Any) -> None:
    dataclasses.replace(Manifest.read(folder), **fields).write(folder)


def half(folder: Path) -> None:
    model = folder / "student.onnx"
    model.write_bytes(model.read_bytes()[: model.stat().st_size // 2])


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (half, r"student\.onnx: damaged, its hash is not the manifest's; copy or build"),
        (lambda f: (f / "student.onnx").unlink(), r"student\.onnx: missing; build the engine again"),
        (lambda f: (f / "manifest.json").write_text('{"runtime": '), r"manifest\.json: not valid JSON"),
        (lambda f: change(f, runtime="abacus"), "wants the run-time 'abacus'; available: onnxruntime"),
        (lambda f: change(f, runtime="tensorrt"), "tensorrt is not installed: uv sync|an NVIDIA GPU, and none is here"),
    ],
    ids=["half a graph", "no graph", "half a manifest", "another run-time", "another machine"],
)
def test_an_engine_that_is_damaged_or_of_another_machine_is_refused_before_the_robot_is_opened(
    tmp_path: Path, untouched: None, spoil: Callable[[Path], Any], words: str
) -> None:
    folder = tiny_engine.write(tmp_path / "engine")
    spoil(folder)
    with pytest.raises(ValueError, match=words) as caught:
        run.main(["--robot", "--engine", str(folder)])
    assert "\n" not in str(caught.value)


def test_an_engine_of_another_version_names_what_differs(tmp_path: Path, untouched: None) -> None:
    folder = tiny_engine.write(tmp_path / "engine")
    content = json.loads((folder / "manifest.json").read_text(encoding="utf8"))
    content["colour"] = content.pop("flavour")
    (folder / "manifest.json").write_text(json.dumps(content), encoding="utf8")
    with pytest.raises(ValueError, match=r"another version \(differing: colour, flavour\); build it again"):
        run.main(["--robot", "--engine", str(folder)])


SOUND = robots.FOLDER / "sim.yaml"


@pytest.mark.parametrize(
    ("before", "after", "words"),
    [
        ("AU12:", "AU99:", "AU99"),
        ("rate_hz: ", "rate_hz: 9", "rate_hz must be in"),
        ("velocity_per_s: ", "velocity_per_s: -", "velocity limits must be positive"),
        ("gamma: ", "gama: ", "gama.*did you mean 'gamma'"),
    ],
    ids=["unknown unit", "rate", "limit", "unknown key"],
)
def test_a_calibration_that_could_move_a_robot_wrongly_is_refused_before_it_is_opened(
    tmp_path: Path, untouched: None, before: str, after: str, words: str
) -> None:
    text = SOUND.read_text(encoding="utf8")
    assert before in text
    (tmp_path / "own.yaml").write_text(text.replace(before, after, 1), encoding="utf8")
    with pytest.raises(ValueError, match=words) as caught:
        run.main(["--robot", "--calibration", str(tmp_path / "own.yaml")])
    assert "\n" not in str(caught.value)
