"""Pictures and sound of a file, on the 30 Hz grid, by presentation time.

The picture of grid frame t is the latest one presented by (t + 0.5)/30 s: never one from after the frame's end, and
insensitive to the millisecond rounding of containers. Time zero is the earliest stream start of the container; sound
that starts late or drops out is padded with zeros. No frame is ever assumed to be 1/fps after the last: 25, 29.97, 60
and variable rates meet the grid by their time stamps. Source of the faults handled: damaged and odd recordings from
the field.
"""

import contextlib
import math
from collections.abc import Generator, Iterable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import Any

import av
import av.error
import numpy as np
from numpy.typing import NDArray

from dyad.clock import FPS, SAMPLE_RATE_HZ

Picture = NDArray[np.uint8]
Sound = NDArray[np.float32]

DROPOUT_S = 0.04
"""Sound missing for longer than this is silence in its place; less is rounding of time stamps."""


class MediaError(ValueError):
    """A file that cannot be read as the caller wanted; the message names it, the fault and the remedy."""


@dataclass(frozen=True)
class MediaInfo:
    """What a container claims: rates in Hz, sizes in pixels, times in seconds; 0 where there is no such stream."""

    path: Path
    has_video: bool
    has_audio: bool
    width: int
    height: int
    fps: float
    duration_s: float
    video_duration_s: float
    """What the header promises of the pictures; a truncated file decodes to less."""
    audio_rate_hz: int
    audio_offset_s: float
    """Start of the sound minus start of the pictures."""


def _open(path: Path | str) -> Any:
    if not Path(path).is_file():
        raise MediaError(f"{path}: no such file; check the path")
    try:
        return av.open(str(path))
    except (av.error.FFmpegError, OSError) as error:
        why = (error.strerror or type(error).__name__).lower()
        with contextlib.suppress(OSError):  # it may not be ours to read
            if _lacks_index(Path(path)):
                why = "its index, which is written last, is missing: it was cut off"
        raise MediaError(f"{path}: not a readable video or sound ({why}); record or copy it again") from None


def _lacks_index(path: Path) -> bool:
    """Whether an MP4 or MOV ends before its moov box; a recorder that plans ahead (faststart) writes that first."""
    at, end = 0, path.stat().st_size
    with path.open("rb") as file:
        while at + 8 <= end:
            file.seek(at)
            size, kind = int.from_bytes(file.read(4)), file.read(4)
            if kind == b"moov" or (at == 0 and kind != b"ftyp"):
                return False
            size = int.from_bytes(file.read(8)) if size == 1 else size
            at = at + size if size >= 8 else end
    return at > 0


def _start_s(stream: Any) -> float:
    return float(stream.start_time * stream.time_base) if stream.start_time is not None else 0.0


def _zero_s(container: Any) -> float:
    """Media time zero: the earliest start among the picture and sound streams."""
    return min((_start_s(s) for s in container.streams if s.type in ("video", "audio")), default=0.0)


def probe(path: Path | str) -> MediaInfo:
    """Read a container's header; raises MediaError when it is missing or unreadable."""
    with _open(path) as container:
        video = next(iter(container.streams.video), None)
        audio = next(iter(container.streams.audio), None)
        duration_s = float(container.duration / av.time_base) if container.duration else 0.0
        return MediaInfo(
            path=Path(path),
            has_video=video is not None,
            has_audio=audio is not None,
            width=video.width if video else 0,
            height=video.height if video else 0,
            fps=float(video.average_rate or 0) if video else 0.0,
            duration_s=max(duration_s, 0.0),
            video_duration_s=_promised_s(video, duration_s) if video else 0.0,
            audio_rate_hz=audio.rate if audio else 0,
            audio_offset_s=_start_s(audio) - _start_s(video) if audio and video else 0.0,
        )


def _promised_s(stream: Any, container_s: float) -> float:
    return float(stream.duration * stream.time_base) if stream.duration else max(container_s, 0.0)


def _timed_frames(container: Any, path: Path | str) -> Generator[tuple[float, Any]]:
    """Decoded pictures with their presentation time; ends quietly at the first damaged packet."""
    stream = next(iter(container.streams.video), None)
    if stream is None:
        raise MediaError(f"{path}: holds no pictures; give a video file")
    stream.thread_type = "AUTO"
    zero_s, last_s, step_s = _zero_s(container), -math.inf, 1.0 / float(stream.average_rate or FPS)
    frames = container.decode(stream)
    while True:
        try:
            frame = next(frames)
        except (StopIteration, av.error.FFmpegError):  # a truncated file plays to its last good frame
            return
        time_s = frame.time - zero_s if frame.time is not None else last_s + step_s
        if math.isinf(time_s):
            time_s = 0.0
        last_s = time_s
        yield time_s, frame


def iter_grid_frames(path: Path | str) -> Iterator[tuple[int, Picture]]:
    """Yield (t, picture [H, W, 3] RGB) for t = 0, 1, … at 30 Hz, in constant memory.

    The last frame of the grid is the one in which the last picture is presented. A truncated file ends at its last
    good picture. Raises MediaError when the file has no picture at all.
    """
    t, shown = 0, None
    with _open(path) as container:
        for time_s, frame in _timed_frames(container, path):
            first = math.ceil(time_s * FPS - 0.5 - 1e-6)  # the first grid frame that may show this picture
            if first > t:  # before the first picture there is darkness: nothing from later may be shown
                picture = _rgb(shown) if shown is not None else np.zeros_like(_rgb(frame))
                while t < first:
                    yield t, picture
                    t += 1
            shown = frame
        if shown is None:
            raise MediaError(f"{path}: no picture could be decoded; the file is damaged, record or copy it again")
        yield t, _rgb(shown)


def _rgb(frame: Any) -> Picture:
    picture = frame.to_ndarray(format="rgb24")
    turns = round(getattr(frame, "rotation", 0) / 90) % 4
    return np.ascontiguousarray(np.rot90(picture, turns)) if turns else picture


def read_video(path: Path | str, *, max_frames: int | None = None) -> NDArray[np.uint8]:
    """All pictures on the 30 Hz grid, [T, H, W, 3] RGB; for short clips only."""
    pictures: list[Picture] = []
    for t, picture in iter_grid_frames(path):
        if max_frames is not None and t >= max_frames:
            break
        pictures.append(picture)
    return np.stack(pictures)


def read_audio(path: Path | str, rate_hz: int = SAMPLE_RATE_HZ) -> Sound:
    """The sound as mono float32 [S] in [-1, 1] at `rate_hz`, sample 0 at media time zero.

    A file without a sound stream, or an empty WAV, gives an empty array: the caller decides. A damaged stream plays
    to its last good packet. Raises MediaError when the file is missing or no container at all.
    """
    if Path(path).is_file() and Path(path).stat().st_size == 0:
        return np.zeros(0, np.float32)
    with _open(path) as container:
        stream = next(iter(container.streams.audio), None)
        if stream is None:
            return np.zeros(0, np.float32)
        zero_s, end_s = _zero_s(container), (container.duration or 0) / av.time_base
        heard_s = max(_start_s(stream) - zero_s, 0.0)
        resampler = av.AudioResampler(format="fltp", rate=rate_hz)
        blocks: list[Sound] = [np.zeros(round(heard_s * rate_hz), np.float32)]
        for frame in _sound_frames(container, stream):
            missing_s = frame.time - zero_s - heard_s if frame.time is not None else 0.0
            if DROPOUT_S < missing_s < end_s - heard_s:  # else what follows would be heard too early
                blocks.append(np.zeros(round(missing_s * rate_hz), np.float32))
                heard_s += missing_s
            heard_s += frame.samples / frame.sample_rate
            blocks.extend(_mono(f) for f in resampler.resample(frame))
        if len(blocks) > 1:
            blocks.extend(_mono(f) for f in resampler.resample(None))
    return np.concatenate(blocks)


def _mono(frame: Any) -> Sound:
    """Mean of the channels [S]: the same voice on both sides keeps its level, unlike in an energy-keeping mix."""
    return frame.to_ndarray().mean(axis=0, dtype=np.float32)


def _sound_frames(container: Any, stream: Any) -> Generator[Any]:
    frames = container.decode(stream)
    while True:
        try:
            yield next(frames)
        except (StopIteration, av.error.FFmpegError):
            return


def write_wav(path: Path | str, sound: Sound, rate_hz: int = SAMPLE_RATE_HZ) -> None:
    """Write mono 16-bit PCM; `sound` [S] float in [-1, 1] is clipped."""
    import wave

    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(rate_hz)
        file.writeframes((np.clip(sound, -1, 1) * 32767).astype("<i2").tobytes())


class VideoWriter:
    """H.264 in MP4, one picture at a time; deterministic (one thread). Use as a context manager."""

    def __init__(
        self,
        path: Path | str,
        size: tuple[int, int],
        *,
        fps: float | Fraction = FPS,
        crf: int = 23,
        preset: str = "veryfast",
        audio: Sound | None = None,
    ) -> None:
        """`size` is (width, height), both even; `audio` [S] at 16 kHz is muxed as AAC."""
        if size[0] % 2 or size[1] % 2:
            raise ValueError(f"{path}: a video's width and height must be even, got {size[0]}x{size[1]}")
        self._container = av.open(str(path), "w", format="mp4", options={"movflags": "+faststart"})
        self._rate = rate = Fraction(fps).limit_denominator(1001)
        self._video: Any = self._container.add_stream(
            "libx264", rate=rate, options={"crf": str(crf), "preset": preset, "threads": "1"}
        )
        self._video.width, self._video.height, self._video.pix_fmt = size[0], size[1], "yuv420p"
        self._audio_samples = audio
        self._audio: Any = None
        if audio is not None and len(audio):
            self._audio = self._container.add_stream("aac", rate=SAMPLE_RATE_HZ, layout="mono")

    def write(self, picture: Picture, pts: int | None = None) -> None:
        """Append a picture [H, W, 3] RGB; `pts` in units of 1/fps for variable rates."""
        frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), format="rgb24")
        if pts is not None:
            frame.pts, frame.time_base = pts, 1 / self._rate
        self._container.mux(self._video.encode(frame))

    def close(self) -> None:
        """Finish both streams and the file."""
        self._container.mux(self._video.encode(None))
        if self._audio is not None and self._audio_samples is not None:
            sound = np.clip(self._audio_samples, -1, 1).astype(np.float32)
            for i in range(0, len(sound), 1024):
                frame = av.AudioFrame.from_ndarray(sound[None, i : i + 1024], format="fltp", layout="mono")
                frame.rate, frame.pts, frame.time_base = SAMPLE_RATE_HZ, i, Fraction(1, SAMPLE_RATE_HZ)
                self._container.mux(self._audio.encode(frame))
            self._container.mux(self._audio.encode(None))
        self._container.close()

    def __enter__(self) -> "VideoWriter":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def write_video(
    path: Path | str, frames: Iterable[Picture], *, fps: float = FPS, audio: Sound | None = None, crf: int = 23
) -> None:
    """Write pictures [H, W, 3] RGB, and sound [S] at 16 kHz when given, as an MP4."""
    writer: VideoWriter | None = None
    try:
        for picture in frames:
            if writer is None:
                writer = VideoWriter(path, (picture.shape[1], picture.shape[0]), fps=fps, audio=audio, crf=crf)
            writer.write(picture)
    finally:
        if writer is not None:
            writer.close()
    if writer is None:
        raise ValueError(f"{path}: no picture to write")
