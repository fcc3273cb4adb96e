"""A sense that is lost says why, whatever the reason, without secrets, and is tried again."""

import threading

import av.error
import pytest

from deploy.sources import capture
from deploy.sources.capture import Follower, Senses
from dyad.clock import FakeClock

URL = "rtsp://admin:secret@10.0.0.9/live"


class Odd:
    """Lost by an error once it is followed, once more by the same when opened again, then well; notes what is said."""

    name, greeting, sees, hears = "odd", "", True, False

    def __init__(self, error: Exception) -> None:
        self.error = error
        self.follower: Follower | None = None
        self.watched = threading.Event()
        self.troubles: list[str] = []

    def open(self) -> None:
        if self.follower is None:
            return
        self.troubles.append(self.follower.trouble)
        if len(self.troubles) == 1:
            raise self.error
        self.follower.stop()

    def follow(self, senses: Senses, stop: threading.Event) -> None:
        assert self.watched.wait(10)
        raise self.error

    def close(self) -> None: ...


@pytest.fixture
def senses(monkeypatch: pytest.MonkeyPatch) -> Senses:
    monkeypatch.setattr(capture, "FIRST_PAUSE_S", 0.0)
    return Senses(FakeClock())


def followed(error: Exception, senses: Senses) -> list[str]:
    """What was said at each attempt to open the device again; the last one goes well."""
    device = Odd(error)
    device.follower = Follower(device, senses)
    device.watched.set()
    device.follower._thread.join(timeout=10)
    assert senses.reconnects == 1
    assert device.follower.trouble == ""
    return device.troubles


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (OSError(19, "No such device"), "No such device"),
        (ValueError("its camera showed nothing"), "its camera showed nothing"),
        (TypeError("no text"), "TypeError: no text"),
        (KeyError("image"), "KeyError: 'image'"),
        (AssertionError("no track"), "AssertionError: no track"),
        (ZeroDivisionError("a rate of 0"), "ZeroDivisionError: a rate of 0"),
        (RuntimeError("event loop is closed"), "RuntimeError: event loop is closed"),
    ],
)
def test_a_sense_is_never_lost_for_good_nor_in_silence(error: Exception, said: str, senses: Senses) -> None:
    lost, unopened = followed(error, senses)
    assert lost == f"odd: lost ({said})"
    assert said in unopened


def test_a_lost_camera_says_why_without_its_address_and_password(senses: Senses) -> None:
    error = av.error.TimeoutError(110, "Connection timed out", URL)
    assert "secret" in str(error), "PyAV repeats the address"
    assert followed(error, senses) == ["odd: lost (Connection timed out)", "Connection timed out"]
