"""Decoders of one interface: which grid frames of a clip are wanted, how large, and on how many cores.

All answer the same question, the latest picture presented by the middle of a grid frame, and are told the clip's time
zero. Compared by `benchmarks.video_decoders`.
"""

import importlib.util
import shutil
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
from av.video.reformatter import VideoReformatter
from numpy.typing import NDArray

from dyad import media
from dyad.clock import FPS
from teacher.windows import square

Picture = NDArray[np.uint8]
CHUNK = 32
"""Pictures that decoders with a batch call are asked for at once."""


@dataclass(frozen=True)
class Clip:
    """A clip and what every decoder is told of it."""

    path: Path
    n_frames: int
    zero_s: float
    width: int
    height: int


@dataclass(frozen=True)
class Wanted:
    """Grid frames range(first, stop, every) at full size, or as the centre square of `size_px`; on `cores`."""

    first: int
    stop: int
    every: int = 1
    size_px: int | None = None
    cores: int = 1

    @property
    def grid(self) -> range:
        """The grid frames."""
        return range(self.first, self.stop, self.every)


Decoder = Callable[[Clip, Wanted], Iterator[Picture]]


def cut_out(picture: Picture, size_px: int | None) -> Picture:
    """The centre square as the teacher sees it; the picture itself at full size."""
    return picture if size_px is None else square(picture, size_px)


def through_media(clip: Clip, wanted: Wanted) -> Iterator[Picture]:
    """`dyad.media`: always from the start, all pixels made."""
    for t, picture in media.iter_grid_frames(clip.path):
        if t in wanted.grid:
            yield cut_out(picture, wanted.size_px)
        if t >= wanted.grid[-1]:
            return


def pyav(kind: str = "AUTO", *, plain: bool = False, scale: bool = False) -> Decoder:
    """PyAV, seeking. Makes wanted pixels only, by one converter; `plain`: all, by one each; `scale`: at their size."""

    def decode(clip: Clip, wanted: Wanted) -> Iterator[Picture]:
        shared, to = VideoReformatter(), dict[str, Any](format="rgb24", threads=1)
        if scale and wanted.size_px:
            factor = wanted.size_px / min(clip.width, clip.height)
            to |= {"width": round(clip.width * factor), "height": round(clip.height * factor)}
            to["interpolation"] = "AREA"
        with av.open(str(clip.path)) as container:
            stream: Any = container.streams.video[0]
            stream.thread_type = kind
            if wanted.first:
                container.seek(int(((wanted.first + 0.5) / FPS + clip.zero_s) / stream.time_base), stream=stream)
            frames: Iterator[Any] = container.decode(stream)
            timed = ((f.time - clip.zero_s, f.to_ndarray(format="rgb24") if plain else f) for f in frames)
            for item, dark in on_grid(timed, wanted.grid):
                converted: Any = item if plain else shared.reformat(item, **to).to_ndarray()
                picture = cut_out(converted, wanted.size_px)
                yield np.zeros_like(picture) if dark else picture

    return decode


def on_grid(timed: Iterator[tuple[float, Any]], grid: range) -> Iterator[tuple[Any, bool]]:
    """For each grid frame the latest item presented by its middle; with True the first of all, which comes later."""
    shown: Any = None
    for time_s, item in timed:
        while grid and grid[0] < time_s * FPS - 0.5 - 1e-6:
            yield (item, True) if shown is None else (shown, False)
            grid = grid[1:]
        if not grid:
            return
        shown = item
    for _ in grid:
        yield shown, False


def opencv(clip: Clip, wanted: Wanted) -> Iterator[Picture]:
    """cv2.VideoCapture. It cannot look ahead, so that every picture's pixels have to be made."""

    def timed() -> Iterator[tuple[float, Picture]]:
        while capture.grab():
            time_s = capture.get(cv2.CAP_PROP_POS_MSEC) / 1000
            yield time_s, cv2.cvtColor(capture.retrieve()[1], cv2.COLOR_BGR2RGB)  # pyright: ignore[reportReturnType]

    capture = cv2.VideoCapture(str(clip.path), cv2.CAP_FFMPEG, [cv2.CAP_PROP_N_THREADS, wanted.cores])
    if wanted.first:
        capture.set(cv2.CAP_PROP_POS_MSEC, 1000 * (wanted.first - 1) / FPS)
    for picture, dark in on_grid(timed(), wanted.grid):
        picture = cut_out(picture, wanted.size_px)
        yield np.zeros_like(picture) if dark else picture
    capture.release()


def ffmpeg(clip: Clip, wanted: Wanted) -> Iterator[Picture]:
    """A pipe from the ffmpeg program; its fps filter rounds to the nearest grid frame, as the grid wants."""
    lead = min(wanted.first, FPS)
    chosen = f"select='gte(n,{lead})*not(mod(n-{lead},{wanted.every}))'"
    size, shape = wanted.size_px, (clip.height, clip.width, 3)
    filters = ["fps=30:start_time=0", chosen]
    if size:
        filters += ["crop='min(iw,ih)':'min(iw,ih)'", f"scale={size}:{size}:flags=area"]
        shape = (size, size, 3)
    seek = ["-ss", f"{(wanted.first - lead) / FPS:.6f}"] if wanted.first else []
    command = ["ffmpeg", "-v", "error", "-threads", str(wanted.cores), *seek, "-i", str(clip.path), "-an", "-vf"]
    command += [",".join(filters), "-frames:v", str(len(wanted.grid)), "-fps_mode", "passthrough"]
    with subprocess.Popen([*command, "-f", "rawvideo", "-pix_fmt", "rgb24", "-"], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        while len(content := process.stdout.read(int(np.prod(shape)))) == np.prod(shape):
            yield np.frombuffer(content, np.uint8).reshape(shape)


def torchcodec(clip: Clip, wanted: Wanted) -> Iterator[Picture]:
    """PyTorch's decoder, asked by presentation time."""
    import torch
    from torchcodec import transforms as T  # pyright: ignore[reportMissingImports] - optional
    from torchcodec.decoders import VideoDecoder  # pyright: ignore[reportMissingImports] - optional

    torch.set_num_threads(wanted.cores)
    side, size = min(clip.width, clip.height), wanted.size_px
    change = [T.CenterCrop((side, side)), T.Resize((size, size))] if size else None
    options = {"dimension_order": "NHWC", "num_ffmpeg_threads": wanted.cores, "transforms": change}
    decoder = VideoDecoder(str(clip.path), **options)
    held = decoder.metadata
    for begin in range(0, len(wanted.grid), CHUNK):
        times = (np.array(wanted.grid[begin : begin + CHUNK]) + 0.5) / FPS + clip.zero_s
        times = times.clip(held.begin_stream_seconds, held.end_stream_seconds - 1e-3)
        yield from decoder.get_frames_played_at(times.tolist()).data.numpy()


def decord(clip: Clip, wanted: Wanted) -> Iterator[Picture]:
    """decord, asked by number; time stamps are those of its index, which counts from the first picture."""
    from decord import VideoReader  # pyright: ignore[reportMissingImports] - optional

    size, factor = {}, (wanted.size_px or 0) / min(clip.width, clip.height)
    if factor:
        size = {"width": round(clip.width * factor), "height": round(clip.height * factor)}
    reader = VideoReader(str(clip.path), num_threads=wanted.cores, **size)
    begins = np.array(reader.get_frame_timestamp(range(len(reader))))[:, 0]
    numbers = np.searchsorted(begins, (np.array(wanted.grid) + 0.5) / FPS + 1e-6, side="right") - 1
    for begin in range(0, len(numbers), CHUNK):
        each, again = np.unique(numbers[begin : begin + CHUNK].clip(0), return_inverse=True)  # it seeks for repeats
        pictures = reader.get_batch(each).asnumpy()
        yield from (cut_out(pictures[i], wanted.size_px) for i in again)


def decoders() -> tuple[dict[str, Decoder], list[str]]:
    """Name → decoder of what is installed, and the names of the rest."""
    found: dict[str, Decoder] = {
        "dyad.media": through_media,
        "PyAV, wanted pixels only": pyav(),
        "the same, slice threads": pyav("SLICE"),
        "the same, frame threads": pyav("FRAME"),
        "the same, scaled by libswscale": pyav(scale=True),
        "PyAV, seeking, all pixels": pyav(plain=True),
        "OpenCV": opencv,
    }
    optional: dict[str, Decoder] = {"torchcodec": torchcodec, "decord": decord}
    if shutil.which("ffmpeg"):
        found["ffmpeg pipe"] = ffmpeg
    found |= {name: decoder for name, decoder in optional.items() if importlib.util.find_spec(name)}
    return found, [name for name in ("ffmpeg pipe", *optional) if name not in found]
