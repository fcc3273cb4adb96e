"""What watching a face costs, how steady its box is, and whether the right one of two people is watched.

    python -m benchmarks.faces --clips DIR

On one thread, thirty frames a second, over clips of talking people (videos with sound; none is in the repository):
what the loop calls each frame, beside the tracker of training, which searches a whole picture in one frame, and beside
one look at every whole picture, which is at most 320 pixels wide for all three. They take turns frame by frame; each
frame counts with the median of the rounds, in processor time. Then two clips at a time side by side
(`benchmarks.faces_pairs`). A human table first, one JSON line last; the whole goes to benchmarks/results/faces.json.
"""

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from benchmarks import faces_pairs
from benchmarks.faces_boxes import errors_by_lag, first_box, jitter, path_of
from benchmarks.repeating import settings
from deploy.faces.watcher import Watcher
from dyad.clock import FRAME_S
from dyad.config import parse, run_main
from dyad.provenance import run_card, sha256_file, write_json
from student.detect import HaarDetector, Picture
from student.face import LEAST_PX, Box, FaceTracker, corners, shrink
from student.frontend import audio_window
from student.spec import StudentSpec

SPEC = StudentSpec()
WAYS = ("the loop's", "training's", "every frame")
NOBODY_FRAMES = 60
START_FRAMES = 5
"""The share of frames with a face is of those after a search's time."""
Look = Callable[[Picture, NDArray[np.float32]], Box | None]


@dataclass(frozen=True, kw_only=True)
class Config:
    """Which clips, and how often."""

    clips: Path
    """Folder of videos of one talking person each."""
    rounds: int = 3
    """So often each clip is played."""
    most_s: float = 8.0
    """So much of each clip at most."""
    pairs: bool = True
    """Clips side by side too."""
    out: Path = Path("benchmarks/results/faces.json")
    """Results file."""


class EveryFrame:
    """The plain way: the cascade on every whole picture, the face nearest to the last one."""

    def __init__(self) -> None:
        self._detector, self._last = HaarDetector(), np.zeros(4)

    def step(self, picture: Picture) -> Box | None:
        """The face of the next picture, if the detector finds one."""
        small, scale = shrink(picture)
        least = max(LEAST_PX, min(small.shape[:2]) // 6)
        boxes = self._detector.find(small, least_px=least, effort="usual").boxes / scale
        if not len(boxes):
            return None
        known = bool(self._last.any())
        away = np.abs(boxes - self._last).sum(axis=1) if known else boxes[:, 0] - boxes[:, 2]
        self._last = boxes[int(np.argmin(away))]
        return corners(self._last)


def looks() -> list[Look]:
    """The three ways, anew."""
    watcher, tracker, plain = Watcher(), FaceTracker(), EveryFrame()
    return [
        lambda picture, window: watcher.step(picture, window).box,
        lambda picture, _: tracker.step(picture).box,
        lambda picture, _: plain.step(picture),
    ]


@dataclass(frozen=True)
class Played:
    """One clip as each way saw it: processor and wall time [ways, T] in ms, boxes per way."""

    cpu_ms: NDArray[np.float64]
    wall_ms: NDArray[np.float64]
    boxes: list[list[Box | None]]


def play(pictures: Sequence[Picture], sound: NDArray[np.float32], rounds: int) -> Played:
    """Thirty pictures a second; the ways take turns in who comes first."""
    took = np.zeros((2, rounds, len(WAYS), len(pictures)))
    boxes: list[list[Box | None]] = []
    for r in range(rounds):
        ways, boxes = looks(), [[] for _ in WAYS]
        due_s = time.perf_counter()
        for t, picture in enumerate(pictures):
            window = audio_window(sound, t, SPEC)
            for k in np.roll(range(len(WAYS)), t + r):
                began = time.thread_time(), time.perf_counter()
                boxes[k].append(ways[k](picture, window))
                took[:, r, k, t] = time.thread_time() - began[0], time.perf_counter() - began[1]
            due_s += FRAME_S
            time.sleep(max(due_s - time.perf_counter(), 0.0))
    cpu_ms, wall_ms = 1000 * np.median(took, axis=1)
    return Played(cpu_ms, wall_ms, boxes)


def percentiles(ms: NDArray[np.float64]) -> dict[str, float]:
    """Mean, median, tail and worst."""
    tail = {f"p{p}_ms": round(float(np.percentile(ms, p)), 2) for p in (50, 95, 99)}
    return {"mean_ms": round(float(ms.mean()), 2), **tail, "worst_ms": round(float(ms.max()), 2)}


def told(played: Played) -> dict[str, Any]:
    """All figures of one clip."""
    paths = [path_of(b) for b in played.boxes]
    lags = errors_by_lag(paths[0], paths[2])
    both = [(a, b) for a, b in zip(played.boxes[0], played.boxes[1], strict=True) if a and b]
    rows: dict[str, Any] = {}
    for k, way in enumerate(WAYS):
        first = first_box(played.boxes[k])
        rows[way] = {
            "processor": percentiles(played.cpu_ms[k]),
            "wall": percentiles(played.wall_ms[k]),
            "face_share": round(float(np.mean([b is not None for b in played.boxes[k][START_FRAMES:]])), 4),
            "jitter": round(jitter(paths[k]), 5),
            "first_box_frame": first,
            "worst_until_first_box_ms": round(float(played.cpu_ms[k, : (first or 0) + 1].max()), 2),
        }
    return {
        "frames": len(played.boxes[0]),
        "ways": rows,
        "ratio": round(float(played.cpu_ms[2].mean() / played.cpu_ms[0].mean()), 2),
        "lag_frames": int(np.argmin(lags)),
        "error_by_lag": [round(float(e), 5) for e in lags],
        "boxes_as_in_training": round(float(np.mean([a == b for a, b in both])), 4),
    }


def overall(clips: dict[str, Any], played: dict[str, Played]) -> dict[str, Any]:
    """The same over all frames of all clips; errors and jitter are means over clips."""
    weight = np.array([c["frames"] for c in clips.values()], float)
    rows: dict[str, Any] = {}
    for k, way in enumerate(WAYS):
        of_clips = [c["ways"][way] for c in clips.values()]
        rows[way] = {
            "processor": percentiles(np.concatenate([p.cpu_ms[k] for p in played.values()])),
            "wall": percentiles(np.concatenate([p.wall_ms[k] for p in played.values()])),
            "face_share": round(float(np.average([c["face_share"] for c in of_clips], weights=weight)), 4),
            "jitter": round(float(np.mean([c["jitter"] for c in of_clips])), 5),
            "first_box_frames": sorted(c["first_box_frame"] for c in of_clips if c["first_box_frame"] is not None),
            "worst_until_first_box_ms": max(c["worst_until_first_box_ms"] for c in of_clips),
        }
    error = np.mean([c["error_by_lag"] for c in clips.values()], axis=0)
    means = [rows[way]["processor"]["mean_ms"] for way in WAYS]
    return {
        "frames": int(weight.sum()),
        "ways": rows,
        "ratio": round(means[2] / means[0], 2),
        "lag_frames": int(np.argmin(error)),
        "error_by_lag": [round(float(e), 5) for e in error],
        "boxes_as_in_training": round(float(np.mean([c["boxes_as_in_training"] for c in clips.values()])), 4),
    }


def verdicts(found: dict[str, Any], nobody: dict[str, Any]) -> dict[str, bool]:
    """What is promised of the face stage."""
    ours, training, plain = (found["ways"][way] for way in WAYS)
    return {
        "2 ms a frame on average": ours["processor"]["mean_ms"] <= 2.0,
        "after five frames, a face in as many frames as by a look at every one": ours["face_share"]
        >= plain["face_share"] - 0.01,
        "steadier than a look at every frame": ours["jitter"] < plain["jitter"],
        "a search is spread: its dearest tick at most 2/3 of training's": ours["worst_until_first_box_ms"]
        <= 2 / 3 * training["worst_until_first_box_ms"],
        "nobody there: cheaper than training's search": nobody[WAYS[0]]["mean_ms"] <= nobody[WAYS[1]]["mean_ms"],
        "with one face, the boxes of training": found["boxes_as_in_training"] == 1.0,
    }


def print_table(clips: dict[str, Any]) -> None:
    """One line per clip and way."""
    print(f"{'processor time, ms':32s}  mean   p50   p95   p99  worst  face  jitter  first box (worst till then)")
    for name, clip in clips.items():
        for way, row in clip["ways"].items():
            cost = "".join(f"{row['processor'][c + '_ms']:6.2f}" for c in ("mean", "p50", "p95", "p99", "worst"))
            first = row.get("first_box_frame", "")
            after = f"{row['face_share']:.3f}  {row['jitter']:.4f}  {first} ({row['worst_until_first_box_ms']:.1f})"
            print(f"{name[:20]:20s} {way:11s} {cost}  {after}")
        print(f"{'':20s} {clip['ratio']:.1f} x; boxes as in training: {100 * clip['boxes_as_in_training']:.1f} %")


def main(argv: list[str] | None = None) -> int:
    """Play, print, write."""
    config = parse(Config, argv, prog="python -m benchmarks.faces", description=(__doc__ or "").splitlines()[0])
    cv2.setNumThreads(1)
    files = faces_pairs.clips_of(config.clips)
    played: dict[str, Played] = {}
    upside_down: list[NDArray[np.float64]] = []
    for file in files:
        pictures, sound = faces_pairs.load(file, config.most_s)
        played[file.name] = play(pictures, sound, config.rounds)
        upside_down.append(play([p[::-1].copy() for p in pictures[:NOBODY_FRAMES]], sound, config.rounds).cpu_ms)
    clips = {name: told(p) for name, p in played.items()}
    found = overall(clips, played)
    costs = np.concatenate(upside_down, axis=1)
    nobody = {way: percentiles(costs[k]) for k, way in enumerate(WAYS)}
    print_table(clips | {"all": found})
    print("box's distance from a look at every frame k frames before, of its width:", found["error_by_lag"])
    print(
        "upside down, so that nobody is found: "
        + ", ".join(f"{w} {n['mean_ms']} ({n['worst_ms']})" for w, n in nobody.items())
    )
    kept = verdicts(found, nobody)
    for promise, well in kept.items():
        print(f"{'kept  ' if well else 'BROKEN'} {promise}")
    report = {
        "run": run_card(
            command="python -m benchmarks.faces",
            config=settings(config),
            inputs={f.name: sha256_file(f) for f in files},
        ),
        "all": found,
        "nobody": nobody,
        "clips": clips,
        "pairs": faces_pairs.measure(files) if config.pairs else None,
        "verdicts": kept,
    }
    write_json(config.out, report)
    print(json.dumps(report))
    return 0 if all(kept.values()) else 1


if __name__ == "__main__":
    run_main(main)
