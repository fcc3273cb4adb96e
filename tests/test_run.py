"""python -m deploy.run from the command line to report and video, with an engine of a few operators."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny_engine
from conftest import REPOSITORY
from numpy.typing import NDArray

from deploy import run
from deploy.loop import Loop
from deploy.robots.sim import SimRobot
from deploy.sources.file import FileSource
from dyad import media
from dyad.action_units import REACT15, SEED17
from dyad.clock import FPS, FRAME_S, FakeClock
from student.spec import StudentSpec

FRAMES = 45


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_engine.write(tmp_path_factory.mktemp("engine"))


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """1.5 s without a face, dark then light, with sound."""
    path = tmp_path_factory.mktemp("clip") / "clip.mp4"
    pictures = (np.full((96, 128, 3), 20 if t < 20 else 230, np.uint8) for t in range(FRAMES))
    media.write_video(path, pictures, audio=np.full(24000, 0.1, np.float32))
    return path


def command(*arguments: object) -> subprocess.CompletedProcess[str]:
    """Run in a process of its own, which ends by saying whether torch was imported."""
    code = (
        "import sys; from deploy import run; from dyad.config import run_main\n"
        "try: run_main(run.main)\n"
        "finally: print('torch imported:', 'torch' in sys.modules)"
    )
    line = [sys.executable, "-c", code, *map(str, arguments)]
    return subprocess.run(line, cwd=REPOSITORY, capture_output=True, text=True, check=False, timeout=120)


def test_one_command_plays_reports_and_films_without_torch(engine: Path, clip: Path, tmp_path: Path) -> None:
    save, where = tmp_path / "films" / "run.mp4", tmp_path / "report.json"
    done = command("--robot", "--engine", engine, "--source", clip, "--save", save, "--report", where)
    assert done.returncode == 0, done.stderr
    assert "torch imported: False" in done.stdout
    assert "p99 ms" in done.stdout
    report = json.loads(where.read_text(encoding="utf8"))
    assert report["ticks"] + report["missed_ticks"] >= FRAMES
    assert {"capture", "face", "features", "student", "motion", "send", "total"} <= set(report["stages"])
    assert set(report["stages"]["total"]) == {"p50_ms", "p95_ms", "p99_ms"}
    for key in ("glass_to_motor_ms", "compensated_ms", "engine", "late_ticks", "refused_frames", "face_share"):
        assert key in report
    assert 0 <= report["au_min"] <= report["au_max"] <= 1
    info = media.probe(save)
    assert (info.width, info.height, info.has_audio) == (1280, 480, True)
    assert info.video_duration_s == pytest.approx(FRAMES / FPS, abs=0.1)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"--robot": "robocop"}, "available: null, sim"),
        ({"--source": "nowhere.mp4"}, "nowhere.mp4: no such file"),
        ({"--engine": "nowhere"}, "nowhere: no engine there"),
        ({"--seconds": "-1"}, "seconds must be positive"),
        ({"--report": "README.md/report.json"}, "README.md"),
    ],
)
def test_a_mistake_is_one_sentence_status_two_and_leaves_the_robot_untouched(
    engine: Path, clip: Path, change: dict[str, str], words: str
) -> None:
    options = {"--robot": "sim", "--engine": str(engine), "--source": str(clip)} | change
    done = command("--no-video", *(part for pair in options.items() for part in pair))
    assert done.returncode == 2
    assert words in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
    assert "ticks" not in done.stdout


@pytest.fixture
def homecomings(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[float]]:
    """Times at which the simulated head was told to go neutral."""
    told: list[float] = []
    original = SimRobot.neutral

    def neutral(robot: SimRobot, now_s: float) -> None:
        told.append(now_s)
        original(robot, now_s)

    monkeypatch.setattr(SimRobot, "neutral", neutral)
    before = signal.getsignal(signal.SIGTERM)
    yield told
    assert signal.getsignal(signal.SIGTERM) is before, "the process has its own handler back"


@pytest.mark.parametrize("fault", ["engine", "SIGTERM"])
def test_whatever_ends_the_run_the_face_goes_home_first(
    engine: Path, clip: Path, homecomings: list[float], monkeypatch: pytest.MonkeyPatch, fault: str
) -> None:
    original = Loop.tick

    def tick(loop: Loop, packet: Any) -> None:
        original(loop, packet)
        if packet.frame >= 3 and fault == "engine":
            raise RuntimeError("the engine broke")
        if packet.frame >= 3:
            os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(Loop, "tick", tick)
    with pytest.raises(RuntimeError if fault == "engine" else KeyboardInterrupt):
        run.main(["--robot", "--no-video", "--engine", str(engine), "--source", str(clip)])
    assert len(homecomings) == 1


def test_robot_without_a_name_means_the_simulated_head() -> None:
    assert run.with_bare_robot(["--robot"]) == ["--robot", "sim"]
    assert run.with_bare_robot(["--robot", "--seconds", "2"]) == ["--robot", "sim", "--seconds", "2"]
    assert run.with_bare_robot(["--robot", "null"]) == ["--robot", "null"]


def followed(clip: Path, engine: tiny_engine.FakeEngine, robot: Any) -> Loop:
    """A whole clip on a clock of our own."""
    source = FileSource(clip, engine.manifest.spec)
    robot.open()
    loop = Loop(engine, robot, FakeClock())
    loop.run(source)
    source.close()
    return loop


def test_an_engine_of_another_unit_set_reaches_the_robot_by_name(clip: Path) -> None:
    from deploy import robots

    spec = StudentSpec(au_names=REACT15.units)
    wanted = np.where(np.array(REACT15.units) == "AU12", 0.99, 1e-4)

    def smile(_: int, __: dict[str, Any]) -> NDArray[np.float32]:
        return tiny_engine.logits(spec, wanted)

    loop = followed(clip, tiny_engine.FakeEngine(smile, spec), robots.load("sim"))
    last = loop.trace.sent[-1]
    assert last.shape == (17,)
    assert last[SEED17.index("AU12")] > 0.9
    assert np.delete(last, SEED17.index("AU12")).max() < 0.05


def test_a_poisoned_answer_starts_the_memory_afresh_and_the_next_one_counts_again(clip: Path) -> None:
    from deploy import robots

    spec = StudentSpec()

    def answer(step: int, _: dict[str, Any]) -> NDArray[np.float32]:
        return tiny_engine.logits(spec, np.nan if 10 <= step < 13 else 0.9)

    fake = tiny_engine.FakeEngine(answer, spec)
    loop = followed(clip, fake, robots.load("null"))
    assert loop.trace.refused_frames == 3
    assert fake.starts == 4
    speed = np.abs(np.diff(np.array(loop.trace.sent), axis=0)) / FRAME_S
    assert speed.max() <= loop.robot.calibration.velocity_per_s * (1 + 1e-4)
    assert loop.trace.sent[-1].min() > 0.9


def test_real_clips_are_followed_with_a_face_and_finite_intensities(real_data: Path, engine: Path) -> None:
    from deploy import engines, robots

    for clip in sorted((real_data / "speakers").iterdir())[:3]:
        robot, opened = robots.load("null"), engines.load(engine)
        source = FileSource(clip, opened.manifest.spec, max_frames=45)
        loop = Loop(opened, robot, FakeClock())
        loop.run(source)
        source.close()
        sent = np.array(loop.trace.sent)
        assert len(sent) == 45
        assert np.isfinite(sent).all()
        assert sent.min() >= 0
        assert sent.max() <= 1
        assert np.mean([b is not None for b in loop.trace.boxes]) > 0.5, clip.name
