"""A camera or network stream opened by PyAV, followed picture by picture and block by block.

Both tracks of a container share one clock, and are mapped to ours in step: lips and voice stay together. Decoding is
set for low delay: no frame threads, no reordering buffer of our own.
"""

import threading
from collections.abc import Iterator
from typing import Any

import av
import av.error
import numpy as np
from numpy.typing import NDArray

from deploy.sources.capture import LOST, Senses, why
from deploy.sources.stamps import captured_in_step
from dyad.clock import SAMPLE_RATE_HZ
from dyad.media import MediaError

SAME_CLOCK_S = 0.5
"""A camera's stamp that lies this closely before its arrival is on the machine's own monotonic clock already."""


def rgb(frame: Any) -> NDArray[np.uint8]:
    """[H, W, 3] of a decoded picture."""
    return frame.to_ndarray(format="rgb24")


class Mono:
    """Any PyAV sound to blocks [S] of mono float32 at 16 kHz, each with the time of its end on the stream's clock."""

    def __init__(self) -> None:
        self._resampler = av.AudioResampler(format="fltp", rate=SAMPLE_RATE_HZ)
        self._end_s = 0.0

    def blocks(self, frame: Any) -> Iterator[tuple[NDArray[np.float32], float]]:
        """Resample; a frame without a time stamp follows the one before."""
        for part in self._resampler.resample(frame):
            began_s = float(part.time) if part.time is not None else self._end_s
            self._end_s = began_s + part.samples / SAMPLE_RATE_HZ
            yield part.to_ndarray().mean(axis=0, dtype=np.float32), self._end_s


class AvDevice:
    """Pictures, sound or both from whatever PyAV opens."""

    greeting = ""

    def __init__(
        self,
        name: str,
        url: str,
        *,
        remedy: str,
        driver: str | None = None,
        options: dict[str, str] | None = None,
        timeout_s: tuple[float, float] | None = None,
        latency_s: float = 0.0,
        kernel_stamps: bool = False,
        sound: bool = True,
    ) -> None:
        """`driver` is FFmpeg's input format, `timeout_s` is for opening and for each read.

        `remedy` ends the sentence of an error. `latency_s` is what capture and transport take at least; with
        `kernel_stamps` the driver's own monotonic time of capture is believed where there is one. Without `sound` only
        pictures are taken.
        """
        self.name, self._url, self._remedy = name, url, remedy
        self._driver, self._options, self._timeout_s = driver, options or {}, timeout_s
        self._latency_s, self._kernel_stamps, self._sound = latency_s, kernel_stamps, sound
        self._container: Any = None
        self._streams: list[Any] = []

    @property
    def sees(self) -> bool:
        """Has a picture track; known once it is open."""
        return any(s.type == "video" for s in self._streams)

    @property
    def hears(self) -> bool:
        """Has a sound track that is wanted; known once it is open."""
        return any(s.type == "audio" for s in self._streams)

    def open(self) -> None:
        """Open the device or connection."""
        try:
            self._container = av.open(
                self._url, format=self._driver, options=dict(self._options), timeout=self._timeout_s
            )
        except LOST as error:
            raise MediaError(f"{self.name}: cannot be opened ({why(error)}); {self._remedy}") from None
        tracks = self._container.streams
        self._streams = [*tracks.video[:1], *(tracks.audio[:1] if self._sound else ())]
        for stream in tracks.video[:1]:
            stream.thread_type = "SLICE"  # frame threads would hold back a picture each
        if not self._streams:
            self.close()
            raise MediaError(f"{self.name}: gives neither pictures nor sound; {self._remedy}")

    def follow(self, senses: Senses, stop: threading.Event) -> None:
        """Push pictures and sound until told to stop or the stream ends."""
        video, audio, mono = senses.time_map(self._latency_s), senses.time_map(self._latency_s), Mono()
        for frame in self._frames(stop):
            arrived_s = senses.clock.now_s()
            if isinstance(frame, av.VideoFrame):
                own_s = frame.time if frame.time is not None else arrived_s
                captured_s = own_s
                if not (self._kernel_stamps and 0 <= arrived_s - own_s < SAME_CLOCK_S):
                    captured_s = captured_in_step(video, audio, own_s, arrived_s)
                senses.see(rgb(frame), captured_s)
                continue
            for block, end_s in mono.blocks(frame):
                ended_s = captured_in_step(audio, video, end_s, arrived_s)
                senses.hear(block, ended_s - len(block) / SAMPLE_RATE_HZ)

    def _frames(self, stop: threading.Event) -> Iterator[Any]:
        packets = self._container.demux(*self._streams)
        while not stop.is_set():
            try:
                packet = next(packets)
                frames = packet.decode()
            except StopIteration:
                return
            except av.error.EOFError:
                return
            except av.error.BlockingIOError:  # avfoundation: nothing there yet
                stop.wait(0.002)
                packets = self._container.demux(*self._streams)
                continue
            except av.error.InvalidDataError:  # a damaged packet costs itself
                continue
            yield from frames

    def close(self) -> None:
        """Release it."""
        if self._container is not None:
            self._container.close()
            self._container = None
