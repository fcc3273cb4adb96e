"""The controller as a process of its own: clients are killed, signals come, and the face is at home each time."""

import http.client
import json
import os
import pty
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import REPOSITORY

NEUTRAL_WITHIN_S = 1.5
AT_NEUTRAL = 0.02
"""Share of travel; what gravity and friction leave is less."""
DRIVER = """
import sys, numpy as np
from deploy.net.client import RemoteLink
from deploy.plan import AUPlan
from dyad.clock import MonotonicClock
clock = MonotonicClock()
link = RemoteLink(sys.argv[1], clock)
link.open(clock.now_s())
face = np.zeros((9, 17), np.float32)
face[:, [0, 1, 8, 16]] = 0.95
seq = 0
while True:
    now_s = clock.now_s()
    link.deliver(AUPlan(seq, now_s, now_s + np.arange(9) / 30, face, face))
    seq += 1
    if seq == 30:
        print("driving", flush=True)
    clock.sleep_until(now_s + 1 / 30)
"""


ON_A_TERMINAL = """
import fcntl, sys, termios
fcntl.ioctl(0, termios.TIOCSCTTY, 0)
from deploy import controller
sys.exit(controller.main(sys.argv[1:]))
"""


class Process:
    """python -m deploy.controller, with what it printed; `terminal` is its own to listen to keys at."""

    def __init__(self, folder: Path, *arguments: str, terminal: int | None = None) -> None:
        self.folder = folder
        start = ["-m", "deploy.controller"] if terminal is None else ["-c", ON_A_TERMINAL]
        line = [sys.executable, *start, *arguments, "--black-box", str(folder)]
        line += [] if "--listen" in arguments else ["--listen", "127.0.0.1:0"]
        line += [] if "--http" in arguments else ["--http", "127.0.0.1:0"]
        self.errors = folder.with_suffix(".err").open("w+", encoding="utf8")
        self.process = subprocess.Popen(
            line, cwd=REPOSITORY, stdin=terminal, stdout=subprocess.PIPE, stderr=self.errors, text=True,
            start_new_session=terminal is not None,
        )  # fmt: skip
        assert self.process.stdout is not None
        found = re.match(r"ready: tcp://(\S+), http://127\.0\.0\.1:(\d+)", self.process.stdout.readline())
        if found is None:
            pytest.fail(f"no start: {self.said()}")
        self.address, self._port = found[1], int(found[2])

    def said(self) -> str:
        self.errors.seek(0)
        return self.errors.read()

    def ask(self, method: str, path: str) -> tuple[int, str]:
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=10)
        connection.request(method, path)
        answer = connection.getresponse()
        text = answer.read().decode()
        connection.close()
        return answer.status, text

    def health(self) -> dict[str, Any]:
        return json.loads(self.ask("GET", "/healthz")[1])

    def until(self, is_so: Callable[[dict[str, Any]], bool], what: str) -> dict[str, Any]:
        health: dict[str, Any] = {}
        for _ in range(500):
            health = self.health()
            if is_so(health):
                return health
            threading.Event().wait(0.02)
        return pytest.fail(f"never came: {what}; {health}; {self.said()}")

    def end(self) -> int:
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(timeout=20)

    def interrupt(self) -> int:
        """Ctrl-C, and before it can be at home more of that."""
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGINT):
            self.process.send_signal(number)
            threading.Event().wait(0.1)
        return self.process.wait(timeout=20)


def boxes(folder: Path) -> list[tuple[dict[str, Any], list[dict[str, Any]]]]:
    """Head and ticks of every black box, oldest first."""
    read = []
    for path in sorted(folder.glob("*.jsonl")):
        head, *rows = (json.loads(line) for line in path.read_text(encoding="utf8").splitlines())
        read.append((head, [row for row in rows if "state" in row]))
    return read


class Started:
    """Controllers and clients of one test; whatever is left of them at its end is killed."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._controllers: list[Process] = []
        self._clients: list[subprocess.Popen[str]] = []

    def controller(self, *arguments: str, terminal: int | None = None) -> Process:
        folder = self._folder / f"box{len(self._controllers)}"
        self._controllers.append(Process(folder, *arguments, terminal=terminal))
        return self._controllers[-1]

    def client(self, controller: Process) -> subprocess.Popen[str]:
        """A loop in a process of its own that drives a strong expression."""
        line = [sys.executable, "-c", DRIVER, controller.address]
        self._clients.append(subprocess.Popen(line, cwd=REPOSITORY, stdout=subprocess.PIPE, text=True))
        stdout = self._clients[-1].stdout
        assert stdout is not None
        assert stdout.readline() == "driving\n"
        return self._clients[-1]

    def close(self) -> None:
        for process in [*self._clients, *(c.process for c in self._controllers)]:
            process.kill()
            process.wait(timeout=10)
            assert process.stdout is not None
            process.stdout.close()
        for controller in self._controllers:
            controller.errors.close()


@pytest.fixture
def started(tmp_path: Path) -> Iterator[Started]:
    all_of_them = Started(tmp_path)
    yield all_of_them
    all_of_them.close()


def test_a_frozen_or_killed_loop_leaves_the_face_neutral_within_a_second_and_a_half(started: Started) -> None:
    controller, silent_since_s = started.controller("--robot", "sim"), []
    for number in (signal.SIGSTOP, signal.SIGKILL):
        client = started.client(controller)
        assert controller.health()["state"] == "following"
        client.send_signal(number)
        health = controller.until(lambda h: h["state"] == "neutral", "neutral")
        silent_since_s.append(health["now_s"] - health["last_plan_age_s"])
        client.kill()
        controller.until(lambda h: h["driver"] is None, "a free place")
        controller.until(lambda h: h["now_s"] > silent_since_s[-1] + NEUTRAL_WITHIN_S + 0.1, "its time")
    assert controller.end() == 143
    (first, _), *_, (_, ticks) = [*boxes(controller.folder), *boxes(controller.folder)]
    assert first["fault"] == "no plans: the loop fell silent"
    moved, times = np.array([np.abs(t["sensed"]).max() for t in ticks]), np.array([t["t"] for t in ticks])
    for since_s in silent_since_s:
        assert moved[(times > since_s - 1) & (times < since_s)].max() > 0.5, "it did move"
        at_home = (times > since_s + NEUTRAL_WITHIN_S) & (times < since_s + NEUTRAL_WITHIN_S + 0.1)
        assert at_home.any()
        assert moved[at_home].max() < AT_NEUTRAL


def test_a_signal_ends_at_neutral_and_further_ones_do_not_cut_that_short(started: Started) -> None:
    controller = started.controller("--robot")
    started.client(controller)
    assert controller.interrupt() == 130
    ((head, ticks),) = boxes(controller.folder)
    assert head["fault"] == "SIGINT"
    assert np.abs([t["sent"] for t in ticks]).max() > 0.5
    assert np.abs(ticks[-1]["sent"]).max() < 1e-6
    assert np.abs(ticks[-1]["sensed"]).max() < AT_NEUTRAL
    assert ticks[-1]["state"] == "released"
    assert not list(controller.folder.glob("*.part"))


def test_a_terminal_that_goes_sends_the_face_home(started: Started) -> None:
    """An ssh connection breaks: the terminal is gone, its settings cannot be restored, and SIGHUP comes."""
    master, slave = pty.openpty()
    controller = started.controller("--robot", terminal=slave)
    os.close(slave)
    started.client(controller)
    os.close(master)
    assert controller.process.wait(timeout=20) == 128 + signal.SIGHUP
    ((head, ticks),) = boxes(controller.folder)
    assert head["fault"] == "SIGHUP"
    assert np.abs([t["sent"] for t in ticks]).max() > 0.5
    assert ticks[-1]["state"] == "released"
    assert np.abs(ticks[-1]["sensed"]).max() < AT_NEUTRAL


def test_an_emergency_stop_over_http_is_latched_until_armed(started: Started) -> None:
    controller = started.controller("--robot", "sim")
    started.client(controller)
    assert controller.ask("POST", "/estop") == (200, "stopped\n")
    stopped = controller.until(lambda h: h["state"] == "released", "the release")
    assert controller.ask("GET", "/healthz")[0] == 503
    assert stopped["why"].startswith("POST /estop")
    assert controller.ask("POST", "/arm")[0] == 200
    controller.until(lambda h: h["state"] == "following", "motion")
    assert 'rapport_events_total{what="refused"}' in controller.ask("GET", "/metrics")[1]
    controller.end()
    (first, ticks), *_ = boxes(controller.folder)
    assert first["fault"].startswith("emergency stop: POST /estop")
    assert {"following", "stopped"} <= {t["state"] for t in ticks}


def test_a_dry_run_connects_no_robot(started: Started) -> None:
    controller = started.controller("--robot", "sim", "--dry-run")
    assert controller.health()["state"] == "waiting"
    assert controller.end() == 143
    assert boxes(controller.folder)[-1][1][-1]["sensed"] is None


def test_two_controllers_do_not_share_a_port_and_the_second_touches_nothing(started: Started, tmp_path: Path) -> None:
    first = started.controller("--robot", "sim")
    for arguments in (["--listen", first.address], ["--http", f"127.0.0.1:{first._port}"]):
        done = refused("--robot", "sim", "--listen", "127.0.0.1:0", *arguments, "--black-box", str(tmp_path / "none"))
        assert "is in use; end the other process or give another port" in done
    first.end()


def refused(*arguments: str) -> str:
    """The one sentence with which a controller does not start."""
    done = subprocess.run(
        [sys.executable, "-m", "deploy.controller", *arguments],
        cwd=REPOSITORY, capture_output=True, text=True, check=False, timeout=60,
        env={k: v for k, v in os.environ.items() if k not in ("RAPPORT_TOKEN", "RAPPORT_HTTP_TOKEN")},
    )  # fmt: skip
    assert done.returncode == 2, done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
    assert done.stdout == ""
    return done.stderr


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--robot", "robocop"], "unknown robot 'robocop'; available:"),
        (["--robot", "sim", "--listen", "0.0.0.0:0"], "not driven without a token; give --token-file FILE"),
        (["--robot", "sim", "--http", "0.0.0.0:0", "--listen", "127.0.0.1:0"], "give --http-token-file FILE"),
        (["--robot", "sim", "--listen", "7030"], "wanted HOST:PORT"),
        (["--robot", "sim", "--token-file", "nowhere"], "nowhere: no such file or directory; make one with"),
        (["--robot", "dynamixel:/dev/nowhere", "--listen", "127.0.0.1:0", "--http", ""], "dynamixel"),
        (["--robot", "sim", "--calibration", "nowhere.yaml"], "nowhere.yaml: no such file"),
        (["--robto", "sim"], "robto"),
    ],
)
def test_a_mistake_is_one_sentence_and_status_two(arguments: list[str], words: str) -> None:
    assert words in refused(*arguments)


def test_the_links_token_is_not_taken_for_the_pages_where_it_would_be_sent_in_clear(tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_text("a-token-of-enough-length", encoding="utf8")
    line = ["--robot", "sim", "--listen", "127.0.0.1:0", "--http", "0.0.0.0:0", "--token-file", str(token)]
    assert "not driven without a token; give --http-token-file FILE" in refused(*line)
    assert "that is the token of the link" in refused(*line, "--http-token-file", str(token))
