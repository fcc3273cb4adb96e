"""A folder of numbered pictures, 1.png to 751.png, as a video."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from dyad.media import MediaError, Picture, write_video

CRF = 18
"""Visually lossless: these pictures are already the crops that a model sees."""


def encode(folder: Path, target: Path, fps: float) -> int:
    """Write the pictures of `folder` as an MP4 at `fps`; returns how many. Raises MediaError naming what is missing."""
    files = numbered(folder)
    write_video(target, _pictures(files), fps=fps, crf=CRF)
    return len(files)


def numbered(folder: Path) -> list[Path]:
    """The pictures in the order of their numbers, without a gap: a lost one would move all that follow in time."""
    if not folder.is_dir():
        raise MediaError(f"{folder}: neither a folder of pictures nor a video; fetch the clip again")
    by_number = {int(f.stem): f for f in folder.glob("*.png") if f.stem.isdecimal()}
    if not by_number:
        raise MediaError(f"{folder}: no picture in it, wanted 1.png, 2.png, …; fetch the clip again")
    first, last = min(by_number), max(by_number)
    lost = [n for n in range(first, last + 1) if n not in by_number]
    if lost or first > 1:
        name = f"{lost[0] if lost else 1}.png"
        raise MediaError(f"{folder}: lacks {name} among {len(by_number)} pictures; fetch the clip again")
    return [by_number[n] for n in sorted(by_number)]


def _pictures(files: list[Path]) -> Iterator[Picture]:
    """Pictures [H, W, 3] RGB of one size, cut to even sides, which H.264 needs."""
    import cv2

    size = None
    for file in files:
        read = cv2.imread(str(file), cv2.IMREAD_COLOR)
        if read is None:
            raise MediaError(f"{file}: not a readable picture; fetch the clip again")
        size = size or read.shape
        if read.shape != size:
            raise MediaError(f"{file}: {read.shape[1]}x{read.shape[0]} pixels, but the first has {size[1]}x{size[0]}")
        yield np.ascontiguousarray(read[: size[0] // 2 * 2, : size[1] // 2 * 2, ::-1]).astype(np.uint8, copy=False)
