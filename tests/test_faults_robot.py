"""What goes wrong between loop and robot: wires that break, signals and kills at the worst moment."""

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
from robot_peers import PEERS, Peer
from test_controller_process import AT_NEUTRAL, NEUTRAL_WITHIN_S, Started, boxes
from toy_robot import ToyRobot

from deploy import run
from deploy.link import LocalLink
from deploy.loop import Loop
from deploy.motion.heart import Heart
from deploy.motion.wire import PAUSES_S
from deploy.robots import Robot
from deploy.robots.sim import SimRobot
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


@pytest.fixture
def started(tmp_path: Path) -> Iterator[Started]:
    all_of_them = Started(tmp_path)
    yield all_of_them
    all_of_them.close()


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
    ticks: list[dict[str, Any]] = list(itertools.chain.from_iterable(rows for _, rows in boxes(controller.folder)))
    moved = {t["t"]: float(np.abs(t["sensed"]).max()) for t in ticks}
    assert max(m for t, m in moved.items() if t < silent_since_s) > 0.5, "it did move"
    assert max(m for t, m in moved.items() if t > silent_since_s + NEUTRAL_WITHIN_S) < AT_NEUTRAL
