"""What goes wrong between loop and robot: wires that break, signals and kills at the worst moment."""

import contextlib
import itertools
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny_engine
from conftest import REPOSITORY
from robot_peers import PEERS, DynamixelPeer, Peer
from robot_servos import TORQUE
from test_controller_process import AT_NEUTRAL, NEUTRAL_WITHIN_S, Started, boxes
from toy_robot import ToyRobot

from deploy import run
from deploy.link import LocalLink
from deploy.loop import Loop
from deploy.motion.heart import Heart
from deploy.motion.wire import PAUSES_S
from deploy.robots import NotReleased, Robot
from deploy.robots.sim import SimRobot
from deploy.run_pages import pages
from deploy.safety.black_box import AFTER_S, BlackBox
from deploy.sources import Packet
from dyad.clock import FPS, FakeClock
from student.spec import StudentSpec

SPEC = StudentSpec()
PICTURE = np.full((48, 64, 3), 90, np.uint8)
SOUND = np.full(800, 0.1, np.float32)


class Rig:
    """A loop to a robot over its real wire, on a clock of its own; the loop never stops."""

    def __init__(self, robot: Robot, folder: Path) -> None:
        self.clock, calibration = FakeClock(), robot.calibration
        self.box = BlackBox(folder, self.clock, robot="it", channels=calibration.names, rate_hz=calibration.rate_hz)
        self.link = LocalLink(robot, self.clock, box=self.box)
        engine = tiny_engine.FakeEngine(lambda *_: tiny_engine.logits(SPEC, 0.9), SPEC)
        self.loop = Loop(engine, self.link, self.clock)
        self.link.open(0.0)

    def follow(self, frames: int) -> None:
        for _ in range(frames):
            self.clock.advance(1 / FPS)
            self.loop.tick(Packet(self.loop.trace.played, self.clock.now_s(), PICTURE, SOUND))

    def until(self, state: str) -> None:
        """Follow until the robot is lost, or there again; a wire needs a moment to notice."""
        for _ in range(2000):
            self.follow(1)
            if self.link.status().state == state:
                return
            threading.Event().wait(0.002)
        pytest.fail(f"never {state}: {self.link.status()}")


LOSABLE = sorted(name for name, peer in PEERS.items() if peer.notices_loss)


@pytest.fixture
def peer(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Peer]:
    peer = PEERS[request.param](tmp_path)
    yield peer
    peer.stop()


@pytest.mark.parametrize("peer", LOSABLE, indirect=True)
def test_a_wire_closed_in_the_middle_of_a_run_is_opened_again_after_growing_pauses(
    peer: Peer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    robot = peer.robot()
    rig, tries = Rig(robot, tmp_path / "box"), list[float]()
    rig.follow(60)
    really = robot.open

    def absent_at_first() -> None:
        tries.append(rig.clock.now_s())
        if len(tries) <= 3:
            raise ValueError("robot it: nobody answers; switch it on")
        really()

    monkeypatch.setattr(robot, "open", absent_at_first)
    peer.drop()
    rig.until("lost")
    lost_s, played, taken = rig.clock.now_s(), rig.loop.trace.played, rig.link.status().counts.taken
    rig.follow(30)
    assert rig.link.status().counts.taken == taken + 30, "the loop goes on, and plans are kept for the robot"
    rig.follow(round(sum(PAUSES_S[:4]) * FPS))
    status = rig.link.status()
    assert status.state == "following"
    assert (status.counts.lost, status.counts.reconnects) == (1, 1)
    np.testing.assert_allclose(np.diff([lost_s, *tries]), PAUSES_S[:4], atol=2 / FPS)
    assert rig.loop.trace.played > played
    assert rig.box.write_due(rig.clock.now_s() + AFTER_S) is not None
    head = json.loads(rig.box.files[0].read_text(encoding="utf8").splitlines()[0])
    assert head["fault"] == "robot lost"
    rig.link.close(home=True)
    peer.wait(peer.released)


@pytest.mark.parametrize("peer", LOSABLE, indirect=True)
def test_a_robot_that_stays_away_costs_neither_the_loop_nor_its_end(peer: Peer, tmp_path: Path) -> None:
    rig = Rig(peer.robot(), tmp_path / "box")
    rig.follow(30)
    peer.stop()
    rig.until("lost")
    rig.follow(200)
    status = rig.link.status()
    assert status.state == "lost"
    assert status.counts.reconnects == 0
    assert rig.loop.trace.refused_frames == 0
    before_s = rig.clock.now_s()
    rig.link.close(home=True)
    assert rig.clock.now_s() - before_s <= NEUTRAL_WITHIN_S + 0.1, "a robot that is gone is not waited for"


def test_a_robot_that_cannot_feel_its_pose_goes_on_from_the_last_one_after_a_lost_wire(tmp_path: Path) -> None:
    """A wire that was cut for a second; the robot behind it stands where the last command left it."""
    robot = ToyRobot(senses=False)
    rig = Rig(robot, tmp_path / "box")
    rig.follow(60)
    last = robot.sent[-1][1]
    assert np.abs(last).max() > 0.5
    robot.broken = True
    rig.until("lost")
    robot.broken = False
    rig.follow(FPS)
    first = next(shares for at_s, shares in robot.sent if at_s > 60 / FPS + 0.1)
    assert np.abs(first - last).max() < 0.1, "one command may not move a face by its whole travel"


@pytest.mark.parametrize(("away_s", "faults"), [(0.2, []), (0.4, ["no plans: the loop fell silent"])])
def test_an_outage_that_is_ridden_out_is_no_fault_and_one_that_turns_the_face_home_is(
    away_s: float, faults: list[str], tmp_path: Path
) -> None:
    rig = Rig(ToyRobot(), tmp_path / "box")
    rig.follow(60)
    for _ in range(round(away_s * FPS)):  # what is between loop and controller lets no plan through
        rig.clock.advance(1 / FPS)
        rig.link.heart.catch_up(rig.clock.now_s())
    rig.follow(60)
    rig.link.close(home=True)
    rig.box.close()
    assert [head["fault"] for head, _ in boxes(tmp_path / "box")] == faults


def test_a_loop_that_goes_home_with_nobody_there_leaves_no_black_box(tmp_path: Path) -> None:
    rig = Rig(ToyRobot(), tmp_path / "box")
    rig.follow(60)
    for _ in range(6 * FPS):
        rig.clock.advance(1 / FPS)
        rig.loop.tick(Packet(rig.loop.trace.played, rig.clock.now_s(), None, np.zeros(800, np.float32)))
    assert rig.link.status().state == "neutral"
    rig.link.close(home=True)
    rig.box.close()
    assert boxes(tmp_path / "box") == []


@pytest.fixture
def started(tmp_path: Path) -> Iterator[Started]:
    all_of_them = Started(tmp_path)
    yield all_of_them
    all_of_them.close()


# ---- torque that stays on ---------------------------------------------------------------------------------


class Clinging(ToyRobot):
    """Does not let go, and knows it."""

    def release(self) -> None:
        super().release()
        raise NotReleased("toy: torque may still be on; cut its power")


def test_a_robot_that_may_hold_on_is_lost_and_untouched_and_nobody_can_miss_it(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    robot = Clinging()
    rig = Rig(robot, tmp_path / "box")
    rig.follow(60)
    rig.link.stop("smoke")
    rig.follow(60)
    status, told = rig.link.status(), len(robot.sent)
    assert (status.state, status.stop_reason) == ("lost", "smoke")
    assert status.doubt == "toy: torque may still be on; cut its power"
    well, words = pages(rig.link, rig.loop).health()
    assert not well
    assert words["why"] == status.doubt
    rig.follow(10 * FPS)
    assert (len(robot.sent), robot.opened) == (told, 1), "whoever stopped it may have a hand in there"
    assert [r.getMessage() for r in caplog.records if r.levelname == "ERROR"] == [status.doubt]
    rig.link.heart.rearm()
    rig.follow(2 * FPS)
    assert (rig.link.status().state, rig.link.status().doubt) == ("following", None)
    assert rig.link.doubt is None
    rig.link.close(home=True)
    assert rig.link.doubt == status.doubt
    rig.box.close()
    faults = [r["text"] for p in rig.box.files for r in map(json.loads, p.read_text().splitlines()) if "text" in r]
    assert status.doubt in faults


@pytest.mark.parametrize("failing", ["nothing", "tick", "wire"])
def test_however_the_beat_ends_a_robot_that_may_hold_on_says_so(
    failing: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    robot = Clinging()
    rig = Rig(robot, tmp_path / "box")
    rig.follow(60)
    robot.broken = failing == "wire"
    if failing == "tick":
        monkeypatch.setattr(rig.link.controller, "tick", lambda _: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            rig.follow(1)
    with contextlib.suppress(ZeroDivisionError):
        rig.link.close(home=True)
    assert rig.link.doubt == "toy: torque may still be on; cut its power"
    assert robot.released == 1


def test_torque_that_stays_on_is_told_by_the_run_and_is_no_success(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    peer = DynamixelPeer(tmp_path)
    servo, tick = peer.bus.servos[20], Loop.tick

    def deafen(loop: Loop, packet: Packet) -> None:
        servo.deaf_to, servo.misses = TORQUE, 10**9
        tick(loop, packet)

    monkeypatch.setattr(Loop, "tick", deafen)
    engine, where = tiny_engine.write(tmp_path / "engine"), tmp_path / "run.json"
    line = ["--robot", f"dynamixel:{peer.address}", "--no-video", "--seconds", "1", "--engine", str(engine)]
    assert run.main([*line, "--report", str(where), "--black-box", str(tmp_path / "box")]) == 1
    words = "torque may still be on (servos [20] hold)"
    assert words in capsys.readouterr().err.splitlines()[-1]
    assert words in json.loads(where.read_text(encoding="utf8"))["doubt"]
    (box,) = (tmp_path / "box").iterdir()
    assert words in box.read_text(encoding="utf8")
    peer.stop()


def test_torque_that_stays_on_is_told_by_the_controller_and_is_no_success(started: Started, tmp_path: Path) -> None:
    peer = DynamixelPeer(tmp_path)
    controller = started.controller("--robot", f"dynamixel:{peer.address}")
    servo = peer.bus.servos[20]
    servo.deaf_to, servo.misses = TORQUE, 10**9
    assert controller.ask("POST", "/estop")[0] == 200
    health = controller.until(lambda h: h["state"] == "lost", "the doubt")
    assert "torque may still be on (servos [20] hold)" in health["why"]
    assert controller.ask("HEAD", "/healthz")[0] == 503
    assert "rapport_may_hold 1" in controller.ask("GET", "/metrics")[1]
    assert controller.end() == 1
    assert controller.said().count("torque may still be on") == 1
    peer.stop()


# ---- signals -----------------------------------------------------------------------------------------------


def test_a_first_ctrl_c_on_the_way_home_does_not_cut_it_short(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[str] = []
    for name in ("release", "close"):
        real = getattr(SimRobot, name)
        monkeypatch.setattr(SimRobot, name, lambda robot, n=name, r=real: (told.append(n), r(robot))[1])
    go_home = Heart._go_home

    def interrupted(heart: Heart) -> None:
        os.kill(os.getpid(), signal.SIGINT)
        go_home(heart)
        told.append("home" if heart.came_home else "not home")

    monkeypatch.setattr(Heart, "_go_home", interrupted)
    engine = tiny_engine.write(tmp_path / "engine")
    flags = ["--robot", "--no-video", "--seconds", "1", "--engine", str(engine), "--black-box", str(tmp_path / "box")]
    assert run.main(flags) == 130
    assert told[-3:] == ["home", "release", "close"] or told[-3:] == ["release", "home", "close"]


def test_a_killed_run_leaves_the_face_neutral_by_the_controllers_own_watchdog(started: Started, tmp_path: Path) -> None:
    """The real command against a real controller; SIGKILL lets the run do nothing at all."""
    controller, engine = started.controller("--robot", "sim"), tiny_engine.write(tmp_path / "engine", offset=3.0)
    line = [sys.executable, "-m", "deploy.run", "--robot", f"tcp://{controller.address}", "--engine", str(engine)]
    loop = subprocess.Popen([*line, "--no-video"], cwd=REPOSITORY, stdout=subprocess.DEVNULL)
    try:
        controller.until(lambda h: h["state"] == "following", "motion")
        seen = controller.health()["now_s"]
        controller.until(lambda h: h["now_s"] > seen + 0.7, "the face at full expression")
        loop.kill()
        health = controller.until(lambda h: h["state"] == "neutral", "neutral")
    finally:
        loop.kill()
        assert loop.wait(timeout=10) == -signal.SIGKILL
    silent_since_s = health["now_s"] - health["last_plan_age_s"]
    controller.until(lambda h: h["now_s"] > silent_since_s + NEUTRAL_WITHIN_S + 0.1, "its time")
    assert controller.health()["driver"] is None, "the place is free for the next run"
    assert controller.end() == 143
    faults = [head["fault"] for head, _ in boxes(controller.folder)]
    assert faults[0] == "no plans: the loop fell silent"
    ticks: list[dict[str, Any]] = list(itertools.chain.from_iterable(rows for _, rows in boxes(controller.folder)))
    moved = {t["t"]: float(np.abs(t["sensed"]).max()) for t in ticks}
    assert max(m for t, m in moved.items() if t < silent_since_s) > 0.5, "it did move"
    assert max(m for t, m in moved.items() if t > silent_since_s + NEUTRAL_WITHIN_S) < AT_NEUTRAL
