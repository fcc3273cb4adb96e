"""A Furhat's own camera and microphone, over the same Realtime API that moves its face.

    --source furhat://192.168.1.20?key=KEY        (or the key in FURHAT_KEY)

Pictures come as JPEG, sound as 16 kHz mono in blocks, both without a time of capture: a block's time is counted in
samples and anchored by its earliest arrivals, a picture's is its arrival less CAMERA_S. Furhat documents
for its older feeds that only robots of type Research have them, and that a virtual Furhat has no camera.
"""

import base64
import binascii
import threading
from collections import deque

import cv2
import numpy as np
from numpy.typing import NDArray

from deploy.robots import RobotLost
from deploy.robots._address import parse
from deploy.robots._furhat import PORT, Event, RealtimeApi
from deploy.sources.capture import Senses
from dyad.clock import SAMPLE_RATE_HZ
from dyad.media import MediaError

CAMERA_S = 0.05
"""From the scene to the arrival of its picture at best: exposure, JPEG, network. A guess, not measured."""
SILENT_S = 5.0
"""A camera that has shown nothing for so long is lost."""
PICTURES, BLOCKS = 2, 64
"""Kept at most while the loop is busy; older ones are dropped."""


class FurhatSenses:
    """Eyes and ears of one Furhat."""

    sees, greeting = True, ""

    def __init__(self, url: str, *, sound: bool) -> None:
        """`url` is furhat://HOST[:PORT][?key=KEY]."""
        where = parse("furhat", url.partition(":")[2].removeprefix("//"), PORT, ("key",))
        self.name, self.hears = f"furhat://{where.shown}", sound
        self._api = RealtimeApi(where, self._hear)
        self._senses: Senses | None = None
        self._pictures: deque[tuple[float, str]] = deque(maxlen=PICTURES)
        self._blocks: deque[tuple[float, str]] = deque(maxlen=BLOCKS)

    def _hear(self, event: Event) -> None:
        """On the line's thread: keep what came and when; decoding is for `follow`."""
        if self._senses is None:
            return
        now_s = self._senses.clock.now_s()
        match event:
            case {"type": "response.camera.data", "image": str(text)} if text:
                self._pictures.append((now_s, text))
            case {"type": "response.audio.data", "microphone": str(text)} if text:
                self._blocks.append((now_s, text))
            case _:
                pass

    def open(self) -> None:
        """Connect and be let in; MediaError when that fails."""
        self._senses = None
        try:
            self._api.open(self.name)
        except ValueError as error:
            raise MediaError(str(error)) from None

    def follow(self, senses: Senses, stop: threading.Event) -> None:
        """Start both feeds and push what comes until told to stop; raises when the robot or its camera is lost."""
        self._pictures.clear()
        self._blocks.clear()
        self._senses, times, count = senses, senses.time_map(), 0
        self._api.put("request.camera.start")
        if self.hears:
            self._api.put("request.audio.start", sample_rate=SAMPLE_RATE_HZ, microphone=True, speaker=False)
        seen_s = senses.clock.now_s()
        while not stop.is_set():
            self._api.line.wait_for(lambda: bool(self._pictures or self._blocks), 0.1)
            while self._blocks:
                arrived_s, text = self._blocks.popleft()
                block = samples(text)
                own_s, count = count / SAMPLE_RATE_HZ, count + len(block)
                senses.hear(block, times.captured_s(own_s, arrived_s - len(block) / SAMPLE_RATE_HZ))
            while self._pictures:
                seen_s, text = self._pictures.popleft()
                if (image := picture(text)) is not None:
                    senses.see(image, seen_s - CAMERA_S)
            self._api.line.check()
            if senses.clock.now_s() - seen_s > SILENT_S:
                raise MediaError(f"its camera showed nothing for {SILENT_S:.0f} s; has this robot a camera feed?")

    def close(self) -> None:
        """Stop the feeds and hang up."""
        try:
            self._api.put("request.camera.stop")
            self._api.put("request.audio.stop")
        except RobotLost:
            pass
        self._api.line.close()


def picture(text: str) -> NDArray[np.uint8] | None:
    """[H, W, 3] RGB of a base64 JPEG; None for one that is damaged."""
    try:
        data = np.frombuffer(base64.b64decode(text, validate=True), np.uint8)
    except binascii.Error:
        return None
    image = cv2.imdecode(data, cv2.IMREAD_COLOR) if len(data) else None
    return None if image is None else np.asarray(cv2.cvtColor(image, cv2.COLOR_BGR2RGB), np.uint8)


def samples(text: str) -> NDArray[np.float32]:
    """[S] in [-1, 1] of base64 little-endian 16-bit sound; a damaged block is silence of no length."""
    try:
        data = base64.b64decode(text, validate=True)
    except binascii.Error:
        return np.zeros(0, np.float32)
    whole = np.frombuffer(data[: len(data) // 2 * 2], "<i2")
    return np.asarray(whole / 32768, np.float32)


def device(url: str, *, sound: bool) -> FurhatSenses:
    """Entry point of `deploy.sources.open_source`."""
    return FurhatSenses(url, sound=sound)
