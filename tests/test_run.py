"""python -m deploy.run from the command line to report and video, with an engine of a few operators."""

import json
import os
import pty
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny_engine
from conftest import REPOSITORY
from numpy.typing import NDArray
from test_net_link import Place

from deploy import engines, robots, run, run_session, side_by_side
from deploy.link import LocalLink
from deploy.loop import Loop, Tick
from deploy.net import client
from deploy.recording import Recorder
from deploy.robots import Robot
from deploy.robots.sim import SimRobot
from deploy.sources.file import FileSource
from dyad import media
from dyad.action_units import REACT15, SEED17
from dyad.clock import FPS, FakeClock
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
    assert report["ended"] == "the source ended"
    assert -1 <= report["share_min"] <= report["share_max"] <= 1
    assert report["fastest_of_limit"] <= 1 + 1e-6
    info = media.probe(save)
    assert (info.width, info.height, info.has_audio) == (1280, 480, True)
    assert info.video_duration_s == pytest.approx(FRAMES / FPS, abs=0.1)


def test_a_film_of_the_newest_part_begins_there(clip: Path, tmp_path: Path) -> None:
    film, heard = tmp_path / "film.mp4", np.full(24000, 0.1, np.float32)
    ticks = [Tick(t, t / FPS, t / FPS, None, None, ()) for t in range(30, 40)]  # the clip is dark before frame 20
    asked = np.zeros((len(ticks), 17), np.float32)
    side_by_side.write(film, clip, heard, ticks, Recorder(1), (asked, SEED17.units))
    speakers = [picture[:, :480].mean() for _, picture in media.iter_grid_frames(film)]
    assert len(speakers) == len(ticks)
    assert min(speakers) > 200
    assert len(media.read_audio(film)) == pytest.approx(len(ticks) * 16000 / FPS, abs=2048)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"--robot": "robocop"}, "unknown robot 'robocop'; available: "),
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


@pytest.mark.parametrize("fault", ["engine", "SIGTERM", "SIGINT"])
def test_whatever_ends_the_run_the_face_goes_home_first_and_the_report_is_written(
    engine: Path, clip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fault: str
) -> None:
    original, let_go = Loop.tick, []
    monkeypatch.setattr(SimRobot, "release", lambda robot: let_go.append(robot.feedback(time.monotonic())))

    def tick(loop: Loop, packet: Any) -> None:
        original(loop, packet)
        if packet.frame == 10 and fault == "engine":
            raise RuntimeError("the engine broke")
        if packet.frame == 10:
            os.kill(os.getpid(), getattr(signal, fault))

    monkeypatch.setattr(Loop, "tick", tick)
    before = signal.getsignal(signal.SIGTERM)
    where, save, box = tmp_path / "run.json", tmp_path / "run.mp4", tmp_path / "box"
    line = ["--robot", "--engine", str(engine), "--source", str(clip), "--report", str(where), "--save", str(save)]
    line += ["--black-box", str(box)]
    if fault == "engine":
        with pytest.raises(RuntimeError, match="the engine broke"):
            run.main(line)
    else:
        assert run.main(line) == 128 + getattr(signal, fault)
    assert len(let_go) == 1
    assert np.abs(let_go[0].shares).max() < 0.02, "let go at home"
    report = json.loads(where.read_text(encoding="utf8"))
    assert (fault if fault != "engine" else "RuntimeError: the engine broke") == report["ended"]
    assert report["ticks"] >= 5
    assert media.probe(save).has_video
    told = "".join(path.read_text(encoding="utf8") for path in box.glob("*.jsonl"))
    assert ("RuntimeError: the engine broke" in told) == (fault == "engine"), "an ordered end is no fault"
    assert signal.getsignal(signal.SIGTERM) is before, "the process has its own handler back"


def test_a_first_signal_while_the_robot_is_opened_leaves_it_let_go_and_closed(
    engine: Path, clip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[str] = []

    def noted(name: str) -> Any:
        real = getattr(SimRobot, name)

        def call(robot: SimRobot) -> None:
            real(robot)
            if name == "open":
                os.kill(os.getpid(), signal.SIGINT)
            told.append(name)

        return call

    for name in ("open", "release", "close"):
        monkeypatch.setattr(SimRobot, name, noted(name))
    line = ["--robot", "--no-video", "--engine", str(engine), "--source", str(clip)]
    assert run.main([*line, "--black-box", str(tmp_path)]) == 130
    assert told == ["open", "release", "close"]


def test_a_terminal_that_goes_ends_the_run_in_order_and_costs_no_report(
    engine: Path, clip: Path, tmp_path: Path
) -> None:
    """An ssh connection breaks: SIGHUP comes, and whatever is printed from then on fails."""
    master, slave = pty.openpty()
    on_it = (
        "import fcntl, termios; fcntl.ioctl(0, termios.TIOCSCTTY, 0); from deploy import run; from dyad import config"
    )
    line = [
        sys.executable,
        "-c",
        f"{on_it}; config.run_main(run.main)",
        "--robot",
        "--no-video",
        "--http",
        "127.0.0.1:0",
    ]
    line += ["--engine", str(engine), "--source", str(clip), "--black-box", str(tmp_path)]
    report = tmp_path / "report.json"
    process = subprocess.Popen(
        [*line, "--report", str(report)],
        cwd=REPOSITORY,
        stdin=slave,
        stdout=slave,
        stderr=slave,
        start_new_session=True,
    )
    os.close(slave)
    said = b""
    while b"health" not in said:
        said += os.read(master, 4096)
    os.close(master)
    assert process.wait(timeout=60) == 128 + signal.SIGHUP
    assert json.loads(report.read_text(encoding="utf8"))["ended"] == "SIGHUP"


def test_a_run_shows_its_health_and_metrics_and_can_be_stopped_from_outside(
    engine: Path, clip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    original, seen = Loop.tick, {}

    def ask(path: str, method: str = "GET") -> tuple[int, str]:
        try:
            with urllib.request.urlopen(urllib.request.Request(address + path, method=method), timeout=5) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.read().decode()

    def tick(loop: Loop, packet: Any) -> None:
        nonlocal address
        original(loop, packet)
        if packet.frame == 20:
            address = capsys.readouterr().out.split("stop: ")[1].split("/healthz")[0]
            seen["health"], seen["metrics"] = ask("/healthz"), ask("/metrics")
            seen["stop"] = ask("/estop", "POST")
        if packet.frame == FRAMES - 1:
            seen["after"] = ask("/healthz")

    address = ""
    monkeypatch.setattr(Loop, "tick", tick)
    line = ["--robot", "--no-video", "--engine", str(engine), "--source", str(clip), "--http", "127.0.0.1:0"]
    where = tmp_path / "run.json"
    assert run.main([*line, "--black-box", str(tmp_path), "--report", str(where)]) == 0
    assert seen["health"][0] == 200
    assert json.loads(seen["health"][1])["state"] in ("waiting", "following")
    assert 'rapport_ticks_total{what="played"} 21' in seen["metrics"][1]
    assert 'rapport_stage_seconds{stage="student",quantile="0.99"}' in seen["metrics"][1]
    assert seen["stop"][0] == 200
    assert seen["after"][0] == 503, "a stopped robot is not well"
    assert "estop" in json.loads(where.read_text(encoding="utf8"))["controller"]["stop_reason"]
    assert list(tmp_path.glob("*.jsonl")), "the minute before the stop is kept"


def test_a_stop_that_the_controller_never_confirmed_is_told_and_is_no_success(
    engine: Path, clip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    place, original, where = Place(), Loop.tick, tmp_path / "run.json"
    monkeypatch.setattr(client, "CONFIRM_S", 0.3)

    def tick(loop: Loop, packet: Any) -> None:
        original(loop, packet)
        if packet.frame == 20:
            place.server.close()
            loop.link.stop("key ' '")

    monkeypatch.setattr(Loop, "tick", tick)
    line = ["--robot", f"tcp://{place.address}", "--engine", str(engine), "--source", str(clip)]
    assert run.main([*line, "--report", str(where)]) == 1
    words = f"the emergency stop (key ' ') was NOT confirmed by {place.address}; cut the robot's power"
    assert capsys.readouterr().err.splitlines()[-1] == f"error: {words}"
    assert json.loads(where.read_text(encoding="utf8"))["doubt"] == words


def test_a_stop_is_told_at_once_with_how_to_arm_and_again_in_the_table(
    engine: Path, clip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    original = Loop.tick

    def tick(loop: Loop, packet: Any) -> None:
        original(loop, packet)
        if packet.frame == 20:
            loop.link.stop("key ' '")

    monkeypatch.setattr(Loop, "tick", tick)
    line = ["--robot", "--no-video", "--engine", str(engine), "--source", str(clip), "--black-box", str(tmp_path)]
    for more, how in ((["--http", "127.0.0.1:0"], "POST http://127.0.0.1:"), ([], "end this process and start it")):
        caplog.clear()
        assert run.main([*line, *more]) == 0
        (told,) = [r.getMessage() for r in caplog.records if "stopped" in r.getMessage()]
        assert told.startswith("stopped: key ' '; the face goes home and is let go; to arm it: " + how)
        assert "stopped (key ' ')" in capsys.readouterr().out


def test_robot_without_a_name_means_the_simulated_head() -> None:
    assert run.with_bare_robot(["--robot"]) == ["--robot", "sim"]
    assert run.with_bare_robot(["--robot", "--seconds", "2"]) == ["--robot", "sim", "--seconds", "2"]
    assert run.with_bare_robot(["--robot", "null"]) == ["--robot", "null"]


def followed(clip: Path, engine: Any, robot: Robot, frames: int | None = None) -> tuple[Loop, Recorder]:
    """A whole clip on a clock of our own."""
    source, ticking, recorder = FileSource(clip, engine.manifest.spec, max_frames=frames), FakeClock(), Recorder(10_000)
    link = LocalLink(robot, ticking, watch=recorder.add)
    link.open(0.0)
    loop = Loop(engine, link, ticking)
    loop.run(source)
    source.close()
    link.close(home=False)
    return loop, recorder


def test_an_engine_of_another_unit_set_reaches_the_robot_by_name(clip: Path) -> None:
    spec = StudentSpec(au_names=REACT15.units)
    wanted = np.where(np.array(REACT15.units) == "AU12", 0.99, 1e-4)

    def smile(_: int, __: dict[str, Any]) -> NDArray[np.float32]:
        return tiny_engine.logits(spec, wanted)

    robot = robots.load("sim")
    loop, recorder = followed(clip, tiny_engine.FakeEngine(smile, spec), robot)
    plan = loop.trace.ticks[-1].plan
    assert plan is not None
    assert plan.au[:, SEED17.index("AU12")].min() > 0.9
    assert np.delete(plan.au, SEED17.index("AU12"), axis=1).max() < 0.05
    moved = {n: s for n, s in zip(robot.calibration.names, recorder.moments[-60].sent, strict=True) if abs(s) > 0.1}
    assert set(moved) == set(robot.calibration.au["AU12"])


def test_a_poisoned_answer_starts_the_memory_afresh_and_the_next_one_counts_again(clip: Path) -> None:
    spec = StudentSpec()

    def answer(step: int, _: dict[str, Any]) -> NDArray[np.float32]:
        return tiny_engine.logits(spec, np.nan if 10 <= step < 13 else 0.9)

    fake = tiny_engine.FakeEngine(answer, spec)
    loop, _ = followed(clip, fake, robots.load("null"))
    assert loop.trace.refused_frames == 3
    assert fake.starts == 4
    plan = loop.trace.ticks[-1].plan
    assert plan is not None
    assert plan.au.min() == pytest.approx(0.9, abs=1e-3)


def test_real_clips_are_followed_with_a_face_and_finite_commands(real_data: Path, engine: Path) -> None:
    for clip in sorted((real_data / "speakers").iterdir())[:3]:
        opened = engines.load(engine)
        loop, recorder = followed(clip, opened, robots.load("sim"), frames=45)
        _, sent = recorder.sent()
        assert loop.trace.played == 45
        assert np.isfinite(sent).all()
        assert np.abs(sent).max() <= 1
        assert loop.trace.faces / 45 > 0.5, clip.name


@pytest.mark.parametrize(
    ("key", "address", "told"),
    [
        ("robot", "furhat:10.0.0.9?key=secret", "furhat:10.0.0.9"),
        ("source", "rtsp://admin:secret@10.0.0.9/live?token=secret", "rtsp://10.0.0.9/live"),
        ("audio", "rtsp://admin:secret@10.0.0.9/sound", "rtsp://10.0.0.9/sound"),
        ("source", "films/clip.mp4", "films/clip.mp4"),
    ],
)
def test_the_report_names_what_was_used_without_the_secrets_in_its_address(key: str, address: str, told: str) -> None:
    public = run_session.public(run.Config(**{"robot": "sim", key: address}))
    assert public[key] == told
    assert "secret" not in json.dumps(public, default=str)
