"""The last minute before a fault: whole, bounded, and never in the robot's way."""

import errno
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from deploy.motion.states import Moment, State
from deploy.robots import Feedback
from deploy.safety import black_box
from deploy.safety.black_box import AFTER_S, BETWEEN_S, BURST, KEPT_FILES, KEPT_S, BlackBox
from dyad.clock import FakeClock

RATE_HZ = 20.0


def moment(now_s: float, state: State = "following") -> Moment:
    pose = np.full(3, 0.123456)
    return Moment(now_s, now_s + 0.1, pose, pose, Feedback(now_s, pose, pose), state)


class Recorded:
    """A box on a clock of its own, fed at 20 Hz."""

    def __init__(self, folder: Path) -> None:
        self.clock = FakeClock()
        self.box = BlackBox(folder, self.clock, robot="sim", channels=("a", "b", "c"), rate_hz=RATE_HZ)

    def live(self, seconds: float, state: State = "following") -> list[Path]:
        """So much time; the files written in it."""
        written = []
        for _ in range(round(seconds * RATE_HZ)):
            self.clock.advance(1 / RATE_HZ)
            self.box.watch(moment(self.clock.now_s(), state))
            path = self.box.write_due(self.clock.now_s())
            written += [path] if path else []
        return written


def rows(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf8").splitlines()]


def test_a_fault_leaves_the_minute_before_it_and_two_seconds_after(tmp_path: Path) -> None:
    recorded = Recorded(tmp_path)
    assert recorded.live(90) == []
    recorded.box.fault("the engine broke")
    (path,) = recorded.live(AFTER_S + 1)
    head, *lines = rows(path)
    assert (head["fault"], head["robot"], head["channels"]) == ("the engine broke", "sim", ["a", "b", "c"])
    ticks = [line for line in lines if "state" in line]
    assert ticks[-1]["t"] == pytest.approx(90 + AFTER_S, abs=0.2)
    assert ticks[0]["t"] == pytest.approx(90 + AFTER_S - KEPT_S, abs=0.2)
    assert ticks[0]["sent"] == [0.1235] * 3
    assert [line["event"] for line in lines if "event" in line] == ["fault"]
    assert [line["t"] for line in lines] == sorted(line["t"] for line in lines)


def test_memory_is_bounded_however_long_it_runs_and_however_much_happens(tmp_path: Path) -> None:
    recorded = Recorded(tmp_path)
    for k in range(3 * black_box.MOST_EVENTS):
        recorded.box.note("plan", f"{k} late", 0.01 * k)
    recorded.live(150)
    assert len(recorded.box._moments) == KEPT_S * RATE_HZ
    assert len(recorded.box._events) == black_box.MOST_EVENTS


def test_many_faults_make_one_file_in_ten_seconds(tmp_path: Path) -> None:
    recorded = Recorded(tmp_path)
    recorded.live(1)
    written = []
    for _ in range(40):
        recorded.box.fault("again")
        written += recorded.live(0.5)
    assert len(written) == 2
    times = [rows(path)[-1]["t"] for path in written]
    assert times[1] - times[0] >= BETWEEN_S - 0.1


def test_a_lost_robot_and_a_burst_of_refused_plans_are_faults_and_single_ones_are_not(tmp_path: Path) -> None:
    recorded = Recorded(tmp_path)
    recorded.live(1)
    for k in range(BURST - 1):
        recorded.box.judge(k, "refused", recorded.clock.now_s())
    recorded.live(5)
    for k in range(3):
        recorded.box.judge(k, "late", recorded.clock.now_s())
    assert recorded.live(5) == []
    for k in range(BURST):
        recorded.box.judge(k, "refused", recorded.clock.now_s())
    (burst,) = recorded.live(5)
    assert rows(burst)[0]["fault"] == "refused plans"
    (lost,) = recorded.live(15, "lost")
    assert rows(lost)[0]["fault"] == "robot lost"
    assert "following → lost" in [line.get("text") for line in rows(lost)]


def test_a_loop_that_falls_silent_is_a_fault_and_one_that_rests_is_not(tmp_path: Path) -> None:
    recorded = Recorded(tmp_path)

    def follow_then_go_home() -> list[Path]:
        recorded.box.judge(0, "taken", recorded.clock.now_s())
        quiet = recorded.live(BETWEEN_S) + recorded.live(0.3, "holding")
        return quiet + recorded.live(1, "returning") + recorded.live(AFTER_S + 1, "neutral")

    (silence,) = follow_then_go_home()
    assert rows(silence)[0]["fault"] == "no plans: the loop fell silent"
    recorded.box.judge(1, "taken", recorded.clock.now_s())
    recorded.box.rest("nobody to see or to hear")
    assert [*recorded.live(1), *recorded.live(5, "returning"), *recorded.live(5, "neutral")] == []
    assert len(follow_then_go_home()) == 1, "the next plan ends the rest"
    recorded.box.judge(2, "taken", recorded.clock.now_s())
    assert recorded.live(BETWEEN_S) == []
    assert len(recorded.live(5, "neutral")) == 1, "a face that was told to be neutral is home at once"


def test_plans_refused_while_stopped_are_the_rule_and_no_fault(tmp_path: Path) -> None:
    recorded = Recorded(tmp_path)
    for state in ("stopped", "released"):
        recorded.live(1, state)
        for k in range(20):
            recorded.box.judge(k, "refused", recorded.clock.now_s())
        assert recorded.live(5, state) == []


def test_a_long_stop_of_a_lost_robot_does_not_push_out_the_record_of_the_accident(tmp_path: Path) -> None:
    recorded = Recorded(tmp_path)
    recorded.live(1, "stopped")
    recorded.box.fault("emergency stop")
    recorded.live(BETWEEN_S + 1, "lost")
    before = sorted(tmp_path.iterdir())
    assert any("emergency-stop" in path.name for path in before)
    for k in range(BURST * 20):
        recorded.box.judge(k, "refused", recorded.clock.now_s())
    recorded.live(BETWEEN_S + 1, "lost")
    assert sorted(tmp_path.iterdir()) == before


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EROFS])
def test_a_full_disk_is_said_and_leaves_nothing_half_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, code: int
) -> None:
    recorded, real = Recorded(tmp_path), black_box._tick

    def full(moment: Moment) -> dict[str, Any]:
        if moment.now_s > 1:
            raise OSError(code, "no room")
        return real(moment)

    monkeypatch.setattr(black_box, "_tick", full)
    recorded.live(2)
    recorded.box.fault("first")
    assert recorded.live(5) == []
    assert list(tmp_path.iterdir()) == []
    assert "no room; the robot goes on" in caplog.text
    monkeypatch.undo()
    recorded.box.fault("second")
    assert len(recorded.live(15)) == 1


def test_only_the_newest_files_are_kept(tmp_path: Path) -> None:
    recorded = Recorded(tmp_path)
    for k in range(KEPT_FILES + 5):
        (tmp_path / f"2020{k:04d}T000000000Z-old.jsonl").write_text("{}\n", encoding="utf8")
    recorded.live(1)
    recorded.box.fault("new")
    (path,) = recorded.live(5)
    left = sorted(tmp_path.iterdir())
    assert len(left) == KEPT_FILES
    assert left[-1] == path


def test_what_is_pending_is_written_at_the_end(tmp_path: Path) -> None:
    recorded = Recorded(tmp_path)
    recorded.box.start()
    recorded.live(1)
    recorded.box.fault("SIGTERM")
    recorded.box.close()
    (path,) = recorded.box.files
    assert rows(path)[0]["fault"] == "SIGTERM"
    assert path.name.endswith("-sigterm.jsonl")
    recorded.box.close()
    assert recorded.box.files == [path]
