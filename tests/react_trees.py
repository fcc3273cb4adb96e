"""Small folders of exactly the shapes of the REACT challenges, with content that says whose it is."""

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from dyad import media
from dyad.action_units import REACT_ATTRIBUTES

FRAMES_2024 = 751
TRAIN = (("NoXI/010_2016-03-25_Paris/Expert_video/1", "NoXI/010_2016-03-25_Paris/Novice_video/1"),)
VAL = (
    ("NoXI/005_2016-03-18_Paris/Expert_video/1", "NoXI/005_2016-03-18_Paris/Novice_video/1"),
    ("RECOLA/group-1/P25/2", "RECOLA/group-1/P26/2"),
)


def person_attributes(clip: str, frames: int) -> NDArray[np.float32]:
    """[T, 25]: units that switch, a valence ramp, expressions; another clip has other values."""
    rng = np.random.default_rng(list(clip.encode()))
    values = np.zeros((frames, 25), np.float32)
    for unit in range(15):
        values[:, unit] = (np.arange(frames) // rng.integers(20, 90)) % 2
    values[:, 15] = np.linspace(-1, 1, frames) * rng.uniform(0.2, 1)
    values[:, 16] = rng.uniform(-1, 1)
    values[:, 17:] = rng.dirichlet(np.ones(8), frames)
    return values


def write_table(path: Path, values: NDArray[np.float32], names: Sequence[str] = REACT_ATTRIBUTES) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="", encoding="utf8") as file:
        csv.writer(file).writerows([list(names), *values.tolist()])


def write_stereo(path: Path, seconds: float, rate_hz: int = 44100) -> None:
    """A 440 Hz tone, the right channel half as loud."""
    import wave

    path.parent.mkdir(parents=True, exist_ok=True)
    tone = 0.4 * np.sin(2 * np.pi * 440 * np.arange(round(seconds * rate_hz)) / rate_hz)
    both = (np.stack([tone, 0.5 * tone], axis=1) * 32767).astype("<i2")
    with wave.open(str(path), "wb") as file:
        file.setnchannels(2)
        file.setsampwidth(2)
        file.setframerate(rate_hz)
        file.writeframes(both.tobytes())


def write_pictures(folder: Path, frames: int) -> None:
    """Pictures 1.png … that brighten with time."""
    folder.mkdir(parents=True)
    for n in range(1, frames + 1):
        cv2.imwrite(str(folder / f"{n}.png"), np.full((32, 32, 3), n * 255 // frames, np.uint8))


def write_lists(root: Path, lists: Mapping[str, Sequence[tuple[str, str]]]) -> None:
    root.mkdir(parents=True, exist_ok=True)
    for split, pairs in lists.items():
        rows = [",speaker_path,listener_path", *(f"{i},{speaker},{other}" for i, (speaker, other) in enumerate(pairs))]
        (root / f"{split}.csv").write_text("\n".join(rows) + "\n", encoding="utf8")


def react2024(root: Path, *, media_too: bool = False) -> Path:
    """One training pair and two for validation; with media, pictures for the trained pair and videos for the rest."""
    write_lists(root, {"train": TRAIN, "val": VAL})
    clips = [(split, c) for split, pairs in (("train", TRAIN), ("val", VAL)) for pair in pairs for c in pair]
    for split, clip in clips:
        folder = root / split
        write_table(folder / "Emotion" / f"{clip}.csv", person_attributes(clip, FRAMES_2024))
        (folder / "3D_FV_files" / clip).parent.mkdir(parents=True, exist_ok=True)
        np.save(folder / "3D_FV_files" / f"{clip}.npy", np.full((FRAMES_2024, 1, 58), len(clip), np.float32))
        if media_too:
            write_stereo(folder / "Audio_files" / f"{clip}.wav", 30.04)
            video = folder / "Video_files" / clip
            if split == "train":
                write_pictures(video, FRAMES_2024)
            else:
                video.parent.mkdir(parents=True, exist_ok=True)
                frames = (np.full((32, 32, 3), n * 255 // FRAMES_2024, np.uint8) for n in range(FRAMES_2024))
                media.write_video(video.with_name(f"{video.name}.mp4"), frames, fps=25)
    return root


MARS = {
    "train": {"session0": {"Camera-2024-06-21-103121-103102": 90, "Camera-2024-06-22-103121-103102": 75}},
    "val": {"session0": {"Camera-2024-07-01-1-2": 80, "Camera-2024-07-02-1-2": 100}, "session10": {"Camera-3": 60}},
}
"""Frames of every clip, by split and topic."""


def react2025(root: Path, *, media_too: bool = False) -> Path:
    for split, topics in MARS.items():
        for topic, clips in topics.items():
            for name, frames in clips.items():
                for role in ("speaker", "listener"):
                    _mars_clip(root / split, f"{role}/{topic}/{name}", frames, media_too)
    return root


def _mars_clip(folder: Path, clip: str, frames: int, media_too: bool) -> None:
    for kind, width in (("facial-attributes", 25), ("coefficients", 58)):
        path = folder / kind / f"{clip}.npy"
        path.parent.mkdir(parents=True, exist_ok=True)
        np.save(path, person_attributes(clip, frames) if width == 25 else np.zeros((frames, width), np.float32))
    if media_too:
        write_stereo(folder / "audio" / f"{clip}.wav", frames / 30, 48000)
        video = folder / "video-face-crop" / f"{clip}.mp4"
        video.parent.mkdir(parents=True, exist_ok=True)
        media.write_video(video, np.full((frames, 32, 32, 3), 99, np.uint8), fps=30)
