"""Microphones of this machine through PortAudio (package sounddevice).

    mic:default    mic:2 (its number)    mic:USB (a part of its name)

16 kHz mono is asked for; a device that refuses is opened at its own rate and resampled. A block's time is counted in
samples, which the device's clock paces evenly, and anchored by PortAudio's own statement of when its first sample was
captured (`inputBufferAdcTime` against `currentTime`), or by its arrival where the driver states none.
"""

import queue
import threading
from collections.abc import Iterator
from fractions import Fraction
from typing import Any

import av

from deploy.robots._extras import remedy
from deploy.sources.capture import Senses
from deploy.sources.container import Mono
from dyad.clock import SAMPLE_RATE_HZ
from dyad.media import MediaError, Sound

BLOCK_S = 0.01
SILENT_S = 1.0
"""A microphone whose driver calls no more for so long is lost."""
PLAUSIBLE_S = 1.0
"""A capture time further from now than this is a driver's fiction."""


def _portaudio() -> Any:
    """The package sounddevice; MediaError with the command that installs what is missing."""
    try:
        import sounddevice
    except ModuleNotFoundError:
        raise MediaError(f"a microphone needs the package sounddevice; {remedy('microphone')}") from None
    except OSError as error:
        raise MediaError(f"a microphone needs PortAudio ({error}); on Debian: apt install libportaudio2") from None
    return sounddevice


class Microphone:
    """One input device."""

    sees, hears, greeting = False, True, ""

    def __init__(self, address: str = "default", *, backend: Any = None) -> None:
        """`backend` is a module like sounddevice; imported when the device is opened if None."""
        self.name = f"mic:{address}"
        self._device = None if address == "default" else int(address) if address.isdigit() else address
        self._backend = backend
        self._stream: Any = None
        self._rate_hz = SAMPLE_RATE_HZ
        self._blocks: queue.SimpleQueue[tuple[Sound, float, bool]] = queue.SimpleQueue()
        self._was_open = False

    def open(self) -> None:
        """Open the device at 16 kHz, else at its own rate."""
        self._blocks = queue.SimpleQueue()  # what came before is stale
        backend = self._backend or _portaudio()
        if self._was_open and self._backend is None:  # PortAudio lists devices once; what was plugged in again is new
            backend._terminate()
            backend._initialize()
        try:
            own_hz = round(backend.query_devices(self._device, "input")["default_samplerate"])
            self._stream = self._opened(backend, own_hz)
            self._stream.start()
        except (backend.PortAudioError, ValueError) as error:
            remedy = "python -m sounddevice lists what is there"
            raise MediaError(f"{self.name}: cannot be opened ({error}); {remedy}") from None
        self._was_open = True

    def _opened(self, backend: Any, own_hz: int) -> Any:
        for self._rate_hz in (SAMPLE_RATE_HZ, own_hz):
            try:
                return backend.InputStream(
                    device=self._device,
                    samplerate=self._rate_hz,
                    blocksize=round(BLOCK_S * self._rate_hz),
                    channels=1,
                    dtype="float32",
                    latency="low",
                    callback=self._called,
                )
            except backend.PortAudioError:
                if self._rate_hz == own_hz:
                    raise
        raise AssertionError("unreachable: the second rate returns or raises")

    def _called(self, block: Sound, frames: int, when: Any, status: Any) -> None:
        """PortAudio's thread: copy and go. The block is [frames, 1]."""
        age_s = when.currentTime - when.inputBufferAdcTime
        if not (when.inputBufferAdcTime > 0 and 0 <= age_s < PLAUSIBLE_S):
            age_s = frames / self._rate_hz
        self._blocks.put((block[:, 0].copy(), age_s, bool(status.input_overflow)))

    def follow(self, senses: Senses, stop: threading.Event) -> None:
        """Push blocks until told to stop or the driver falls silent."""
        times, mono, count = senses.time_map(), Mono(), 0
        while not stop.is_set():
            try:
                block, age_s, overflow = self._blocks.get(timeout=SILENT_S)
            except queue.Empty:
                raise MediaError(f"the driver gave nothing for {SILENT_S:.0f} s") from None
            first_s = senses.clock.now_s() - age_s
            if overflow:  # samples were lost and nobody says how many: anchor anew
                times, mono = senses.time_map(), Mono()
            own_s = count / self._rate_hz
            offset_s = times.captured_s(own_s, first_s) - own_s
            for piece, end_s in self._pieces(block, count, mono):
                senses.hear(piece, end_s - len(piece) / SAMPLE_RATE_HZ + offset_s)
            count += len(block)

    def _pieces(self, block: Sound, count: int, mono: Mono) -> Iterator[tuple[Sound, float]]:
        """The block at 16 kHz, with the time of its end by the count of samples."""
        if self._rate_hz == SAMPLE_RATE_HZ:
            return iter([(block, (count + len(block)) / SAMPLE_RATE_HZ)])
        frame = av.AudioFrame.from_ndarray(block[None], format="fltp", layout="mono")
        frame.rate, frame.pts, frame.time_base = self._rate_hz, count, Fraction(1, self._rate_hz)
        return mono.blocks(frame)

    def close(self) -> None:
        """Release the device."""
        if self._stream is not None:
            self._stream.close()
            self._stream = None
