"""A Furhat's camera and microphone reach the loop's senses through the Realtime API, spoken by a peer."""

import base64
import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from robot_peers import FurhatPeer

from deploy.robots import RobotLost
from deploy.sources import furhat, open_source
from deploy.sources.capture import Senses
from dyad.clock import FakeClock, MonotonicClock
from dyad.media import MediaError
from student.spec import StudentSpec


class SeeingFurhat(FurhatPeer):
    """Also shows and lets hear what a test gives it, once it is asked to."""

    shows = hears = False

    def more(self, connection: Any, kind: str, said: dict[str, Any]) -> None:
        if kind == "request.audio.start":
            assert said == {"sample_rate": 16000, "microphone": True, "speaker": False}
        match kind:
            case "request.camera.start" | "request.camera.stop":
                self.shows = kind.endswith("start")
            case "request.audio.start" | "request.audio.stop":
                self.hears = kind.endswith("start")
            case _:
                super().more(connection, kind, said)

    def say(self, **event: object) -> None:
        self.open_ones[-1].send(json.dumps(event))

    def show(self, image: np.ndarray) -> None:
        _, jpeg = cv2.imencode(".jpg", image[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 95])
        self.say(type="response.camera.data", image=base64.b64encode(jpeg.tobytes()).decode())

    def utter(self, sound: np.ndarray) -> None:
        data = (sound * 32768).astype("<i2").tobytes()
        self.say(type="response.audio.data", microphone=base64.b64encode(data).decode())


class Noted(Senses):
    """Senses that note what they get."""

    def __init__(self, clock: Any) -> None:
        super().__init__(clock)
        self.seen: list[tuple[np.ndarray, float]] = []
        self.heard: list[tuple[np.ndarray, float]] = []
        self.something = threading.Condition()

    def see(self, picture: np.ndarray, captured_at_s: float) -> None:
        with self.something:
            self.seen.append((picture, captured_at_s))
            self.something.notify_all()

    def hear(self, block: np.ndarray, captured_at_s: float) -> None:
        with self.something:
            self.heard.append((block, captured_at_s))
            self.something.notify_all()

    def wait(self, pictures: int, blocks: int) -> None:
        with self.something:
            assert self.something.wait_for(lambda: len(self.seen) >= pictures and len(self.heard) >= blocks, 10)


@pytest.fixture
def peer(tmp_path: Path) -> Iterator[SeeingFurhat]:
    peer = SeeingFurhat(tmp_path)
    yield peer
    peer.stop()
    assert not peer.complaints


class Following:
    """A device followed on a thread, as the loop's own follower does."""

    def __init__(self, url: str, senses: Noted, *, sound: bool = True) -> None:
        self.device, self.error = furhat.device(url, sound=sound), None
        self._stop, self._senses = threading.Event(), senses
        self.device.open()
        self._thread = threading.Thread(target=self._follow, daemon=True)
        self._thread.start()

    def _follow(self) -> None:
        try:
            self.device.follow(self._senses, self._stop)
        except (ValueError, OSError) as error:
            self.error: Exception | None = error

    def end(self, *, stop: bool = True) -> None:
        if stop:
            self._stop.set()
        self._thread.join(10)
        assert not self._thread.is_alive()
        self.device.close()


def gradient(shade: int) -> np.ndarray:
    image = np.full((48, 64, 3), (200, shade, 40), np.uint8)
    image[:24] //= 2
    return image


def test_pictures_and_sound_arrive_as_they_were_with_the_time_of_their_capture(peer: SeeingFurhat) -> None:
    clock = FakeClock(100.0)
    senses = Noted(clock)
    following = Following(f"furhat://{peer.address}", senses)
    peer.wait(lambda: peer.shows and peer.hears)
    sound = np.sin(np.arange(1600) / 20).astype(np.float32) / 2
    for k in range(3):
        peer.show(gradient(60 * k))
        peer.utter(sound)
        senses.wait(k + 1, k + 1)
        clock.advance(0.1)
    following.end()
    peer.wait(lambda: not peer.shows and not peer.hears)
    for k, (image, at_s) in enumerate(senses.seen):
        assert np.abs(image.astype(int) - gradient(60 * k)).mean() < 3, "colours in RGB"
        assert at_s == pytest.approx(100.0 + 0.1 * k - furhat.CAMERA_S)
    for k, (block, at_s) in enumerate(senses.heard):
        np.testing.assert_allclose(block, sound, atol=1e-4)
        assert at_s == pytest.approx(100.0 + 0.1 * k - 0.1, abs=1e-3)


def test_blocks_that_arrive_unevenly_are_stamped_evenly(peer: SeeingFurhat) -> None:
    clock = FakeClock(50.0)
    senses = Noted(clock)
    following = Following(f"furhat://{peer.address}", senses)
    peer.wait(lambda: peer.hears)
    late_s = np.random.default_rng(0).uniform(0, 0.08, 30)
    late_s[0] = 0
    for k in range(30):
        clock.sleep_until(50.1 + 0.1 * k + late_s[k])
        peer.utter(np.zeros(1600))
        senses.wait(0, k + 1)
    following.end()
    assert np.diff([at_s for _, at_s in senses.heard]) == pytest.approx(0.1, abs=0.002)


def test_without_sound_the_microphone_is_left_alone(peer: SeeingFurhat) -> None:
    senses = Noted(FakeClock())
    following = Following(f"furhat://{peer.address}", senses, sound=False)
    peer.wait(lambda: peer.shows)
    peer.show(gradient(1))
    senses.wait(1, 0)
    following.end()
    assert "request.audio.start" not in [event["type"] for event in peer.events]


def test_damaged_pictures_and_blocks_are_passed_over(peer: SeeingFurhat) -> None:
    senses = Noted(FakeClock())
    following = Following(f"furhat://{peer.address}", senses)
    peer.wait(lambda: peer.shows)
    for damaged in ("", "####", base64.b64encode(b"no jpeg at all").decode()):
        peer.say(type="response.camera.data", image=damaged)
        peer.say(type="response.audio.data", microphone=damaged[:4])
    for odd in (1, ["jpeg"], {"data": ""}, None):
        peer.say(type="response.camera.data", image=odd)
        peer.say(type="response.audio.data", microphone=odd)
    peer.show(gradient(9))
    senses.wait(1, 0)
    following.end()
    assert len(senses.seen) == 1


def test_a_lost_furhat_ends_the_following_and_can_be_opened_again(peer: SeeingFurhat) -> None:
    senses = Noted(FakeClock())
    url = f"furhat://{peer.address}"
    following = Following(url, senses)
    peer.wait(lambda: peer.shows)
    peer.drop()
    following.end(stop=False)
    assert isinstance(following.error, RobotLost)
    following.device.open()
    following.device.close()


def test_a_camera_that_shows_nothing_is_lost_with_a_reason(peer: SeeingFurhat) -> None:
    clock = FakeClock()
    following = Following(f"furhat://{peer.address}", Noted(clock))
    peer.wait(lambda: peer.shows)
    clock.advance(furhat.SILENT_S + 1)
    following.end(stop=False)
    assert isinstance(following.error, MediaError)
    assert "showed nothing for 5 s" in str(following.error)


def test_a_wrong_key_is_refused_and_never_shown(peer: SeeingFurhat) -> None:
    device = furhat.device(f"furhat://{peer.address.partition('?')[0]}?key=wrong", sound=True)
    assert "wrong" not in device.name
    with pytest.raises(MediaError, match=r"furhat://127.0.0.1:\d+ refuses the key; .*FURHAT_KEY") as caught:
        device.open()
    assert "wrong" not in str(caught.value)
    device.close()


def test_the_loop_opens_a_furhat_by_its_address(peer: SeeingFurhat) -> None:
    source = open_source(f"furhat://{peer.address}", None, StudentSpec(), MonotonicClock())
    peer.wait(lambda: peer.shows and peer.hears)
    source.close()
    with pytest.raises(ValueError, match=r"no connection to ws://127.0.0.1:9/v1/events"):
        open_source("furhat://127.0.0.1:9", None, StudentSpec(), MonotonicClock())
