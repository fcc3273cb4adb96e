"""Which decoder gives a clip's pictures on the 30 Hz grid fastest, and which gives the right ones at all.

    python -m benchmarks.video_decoders --clips FOLDER    # a quarter of an hour; without --clips on a made clip

Whole clips at full size (the student's front end), 5 pictures a second as a small square (the teacher), and random
10 s windows of a minute's recording. Each decoder is optional (torchcodec, decord, ffmpeg) and is told the clip's time
zero; all answer the same question: the latest picture presented by the middle of a grid frame. They take turns, on one
core and on two; ratios are medians over turns, of wall time and of processor time, which busy neighbours move less. A
clip of variable rate, whose pictures carry their number, shows who heeds time stamps.
"""

import importlib.metadata
import importlib.util
import json
import os
import sys
import tempfile
import time
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
from numpy.typing import NDArray

from benchmarks.decoders import Clip, Decoder, Picture, Wanted, decoders, through_media
from dyad import media
from dyad.clock import FPS
from dyad.config import as_dict, parse, run_main
from dyad.provenance import run_card, write_json

SUFFIXES = (".mp4", ".mkv", ".mov", ".mpg", ".avi", ".webm")
MODERATE_PX = 1 << 19
"""Clips of more pixels are not made into the long recording."""
MODULES = {"opencv-python-headless": "cv2"}
ALL_CORES = sorted(os.sched_getaffinity(0)) if sys.platform == "linux" else []


@dataclass(frozen=True, kw_only=True)
class Config:
    """What is decoded, and how often."""

    clips: tuple[Path, ...] = ()
    """Clips, or folders of them; none: one is made."""
    rounds: int = 5
    """Turns of every decoder."""
    max_frames: int = 90
    """At most so many grid frames of each clip."""
    long_s: float = 60.0
    """Length of the recording that windows are drawn from."""
    windows: int = 4
    """Random windows a turn."""
    only: tuple[str, ...] = ()
    """Decoders beside dyad.media; none named: all."""
    out: Path = Path(__file__).parent / "results" / "video_decoders.json"
    """Results file."""


Jobs = dict[str, list[tuple[Clip, Wanted]]]
Times = dict[tuple[str, str], NDArray[np.float64]]
Table = dict[str, dict[str, dict[str, Any]]]
FAULTS = (RuntimeError, ValueError, OSError, IndexError, EOFError, cv2.error)
"""How decoders refuse a clip."""


def numbered(number: int, size_px: int = 64) -> Picture:
    """A picture that carries its number as eight black or white bars."""
    bars = np.array([(number >> b) & 1 for b in range(8)], np.uint8) * 255
    return np.repeat(bars, size_px // 8)[None, :, None].repeat(size_px, 0).repeat(3, 2)


def number_of(picture: Picture) -> int:
    """The number of a picture by `numbered`."""
    bars = picture[:, :, 1].mean(0).reshape(8, -1).mean(1)
    return sum(int(bar > 127) << b for b, bar in enumerate(bars))


def variable_rate(path: Path) -> Clip:
    """A clip of 120 numbered pictures, 11 ms to 0.2 s apart, none at the very middle of a grid frame."""
    ticks = np.cumsum(np.random.default_rng(3).integers(1, 19, 120))
    with media.VideoWriter(path, (64, 64), fps=90) as writer:
        for i, tick in enumerate(ticks - ticks[0]):
            writer.write(numbered(i), int(tick))
    return describe(path)


def made(path: Path) -> Path:
    """Ten seconds of moving shapes at 25 pictures a second."""
    y, x = np.mgrid[0:240, 0:320]
    waves = (127 + 120 * np.sin((x + 3 * i) / 23) * np.cos((y - 2 * i) / 17) for i in range(250))
    media.write_video(path, (np.repeat(w[..., None], 3, 2).astype(np.uint8) for w in waves), fps=25)
    return path


def long_recording(clip: Clip, path: Path, seconds: float) -> Clip:
    """The clip forth and back until it is so long: H.264 with key frames where the encoder sets them."""
    pictures = list(media.read_video(clip.path, max_frames=clip.n_frames))
    there_and_back = [*range(len(pictures)), *range(len(pictures) - 2, 0, -1)]
    order = (there_and_back[i % len(there_and_back)] for i in range(round(seconds * FPS)))
    media.write_video(path, (pictures[i][: clip.height // 2 * 2, : clip.width // 2 * 2] for i in order))
    return describe(path)


def describe(path: Path, max_frames: int = 1 << 30) -> Clip:
    """Length on the grid, time zero and size of a clip."""
    info, n_frames = media.probe(path), sum(1 for _ in islice(media.iter_grid_frames(path), max_frames))
    with av.open(str(path)) as container:
        starts = [float((s.start_time or 0) * (s.time_base or 0)) for s in container.streams]
    return Clip(path, n_frames, min(starts), info.width, info.height)


def find_clips(config: Config, scratch: Path) -> list[Clip]:
    """The clips named, those in folders, or one that is made."""
    paths = [p for given in config.clips for p in (sorted(given.rglob("*")) if given.is_dir() else [given])]
    paths = [p for p in paths if p.suffix.lower() in SUFFIXES]
    if config.clips and not paths:
        raise ValueError(f"{', '.join(map(str, config.clips))}: no clip there; known are {', '.join(SUFFIXES)}")
    return [describe(p, config.max_frames) for p in paths or [made(scratch / "made.mp4")]]


def keep_on(cores: int) -> bool:
    """Keep this thread, and all that it starts, on so many cores; False where that cannot be."""
    if sys.platform != "linux":
        return cores == 1  # timed once, on whatever the system gives
    os.sched_setaffinity(0, ALL_CORES[:cores])
    return len(os.sched_getaffinity(0)) == cores


def versions() -> dict[str, str]:
    """Of the libraries that decode, as far as installed."""
    names = [
        n
        for n in ("av", "opencv-python-headless", "torchcodec", "decord")
        if importlib.util.find_spec(MODULES.get(n, n))
    ]
    return {name: importlib.metadata.version(name) for name in names}


def compare(pictures: list[Picture], reference: list[Picture]) -> dict[str, float]:
    """How far a decoder's pictures are from the reference; one that is missing counts as another."""
    same_size = [(a, b) for a, b in zip(pictures, reference, strict=False) if a.shape == b.shape]
    gaps = [np.abs(a.astype(np.int16) - b) for a, b in same_size]
    return {
        "pictures": len(reference),
        "other": len(reference) - sum(not gap.any() for gap in gaps),
        "max_difference": float(max((gap.max() for gap in gaps), default=255)),
        "mean_difference": float(np.mean([gap.mean() for gap in gaps])) if gaps else 255.0,
    }


def answer(decoder: Decoder, clip: Clip, wanted: Wanted) -> tuple[list[Picture], str]:
    """All pictures and "", or as many as there were before the fault, and the fault."""
    pictures: list[Picture] = []
    try:
        pictures.extend(p.copy() for p in decoder(clip, wanted))
    except FAULTS as error:
        return pictures, f"{clip.path.name}: {(str(error) or repr(error)).splitlines()[0][:120]}"
    return pictures, ""


def check(found: dict[str, Decoder], jobs: Jobs, variable: Clip) -> dict[str, Any]:
    """Decoder → case → distance from `dyad.media`, the clips where it differs, and faults; and the variable rate."""
    checked: dict[str, Any] = {name: {"faults": {}} for name in found}
    for case, wanted in jobs.items():
        rows: dict[str, list[dict[str, float]]] = {name: [] for name in found}
        odd: dict[str, set[str]] = {name: set() for name in found}
        for clip, what in wanted:
            reference = list(through_media(clip, what))
            for name, decoder in found.items():
                pictures, fault = answer(decoder, clip, what)
                rows[name].append(compare(pictures, reference))
                if rows[name][-1]["other"]:
                    odd[name].add(clip.path.name)
                if fault:
                    checked[name]["faults"][clip.path.name] = fault
        for name, row in rows.items():
            checked[name][case] = {
                "pictures": int(sum(r["pictures"] for r in row)),
                "other": int(sum(r["other"] for r in row)),
                "max_difference": int(max(r["max_difference"] for r in row)),
                "mean_difference": round(float(np.mean([r["mean_difference"] for r in row])), 3),
                "clips_that_differ": sorted(odd[name]),
            }
    truth = [number_of(p) for p in through_media(variable, Wanted(0, variable.n_frames))]
    for name, decoder in found.items():
        seen = [number_of(p) for p in answer(decoder, variable, Wanted(0, variable.n_frames))[0]]
        right = sum(a == b for a, b in zip(seen, truth, strict=False))
        checked[name]["right_at_a_variable_rate"] = round(right / len(truth), 4)
    return checked


def spent_s() -> tuple[float, float]:
    """Wall time, and processor time of this process and of those that it has waited for, seconds."""
    children = os.times()
    return time.perf_counter(), time.process_time() + children.children_user + children.children_system


def measure(found: dict[str, Decoder], jobs: Jobs, rounds: int) -> Times:
    """(decoder, case) → seconds [rounds, jobs, (wall, processor)], NaN where it fails."""
    times: dict[tuple[str, str], list[list[NDArray[np.float64]]]] = {}
    names = list(found)
    for turn in range(rounds):
        first = turn % len(names)
        for case, wanted in jobs.items():
            for name in names[first:] + names[:first]:
                row = []
                for clip, what in wanted:
                    begin = spent_s()
                    try:
                        got = sum(1 for _ in found[name](clip, what))
                    except FAULTS:
                        got = 0
                    row.append(np.subtract(spent_s(), begin) if got else np.full(2, np.nan))
                times.setdefault((name, case), []).append(row)
    return {key: np.array(rows) for key, rows in times.items()}


def summarise(times: Times, jobs: Jobs) -> Table:
    """Case → decoder → frames per second (or ms per window), ratios to `dyad.media`, and clips that failed."""
    table: Table = {case: {} for case in jobs}
    for (name, case), own in times.items():
        frames, base = np.array([len(range(w.first, w.stop)) for _, w in jobs[case]]), times["dyad.media", case]
        good = ~np.isnan(own).any((0, 2))
        row: dict[str, Any] = {"failed": int((~good).sum())}
        table[case][name] = row
        if not good.any():
            continue
        took = own[:, good].sum(1)
        wall, processor = np.median(base[:, good].sum(1) / took, axis=0)
        row |= {"beside_dyad_media": round(float(wall), 3), "by_processor_time": round(float(processor), 3)}
        each = np.median(base[..., 1] / own[..., 1], axis=0)
        row["each_by_processor_time"] = [None if np.isnan(r) else round(float(r), 3) for r in each]
        row["median_by_processor_time"] = round(float(np.nanmedian(each)), 3)
        if case.startswith("random"):
            row["ms_per_window"] = round(1e3 * float(np.median(took[:, 0])) / int(good.sum()), 2)
        else:
            row["frames_per_s"] = round(float(frames[good].sum() / np.median(took[:, 0])), 1)
    return table


def cases(clips: list[Clip], recording: Clip, config: Config, cores: int) -> Jobs:
    """Case → what every decoder is asked for; windows are the same for all."""
    rng = np.random.default_rng(0)
    span = min(10 * FPS, recording.n_frames)
    begins = [int(b) for b in rng.integers(0, recording.n_frames - span + 1, config.windows)]
    return {
        "whole clips, 30 a second, full size": [(c, Wanted(0, c.n_frames, cores=cores)) for c in clips],
        "whole clips, 5 a second, 224 px": [(c, Wanted(0, c.n_frames, 6, 224, cores)) for c in clips],
        "whole clips, 5 a second, 112 px": [(c, Wanted(0, c.n_frames, 6, 112, cores)) for c in clips],
        "random window, its first picture": [(recording, Wanted(b, b + 1, 1, 224, cores)) for b in begins],
        "random window, 10 s, 5 a second, 224 px": [(recording, Wanted(b, b + span, 6, 224, cores)) for b in begins],
    }


def print_tables(cores: int, table: Table, checked: dict[str, Any]) -> None:
    """One table per case: speed, ratio, and whether the pictures are the right ones."""
    for case, rows in table.items():
        unit = "ms per window" if case.startswith("random") else "frames/s"
        print(f"\n{case}, on {cores} core{'s' * (cores > 1)}")
        heads = f"{unit:>13s} {'× dyad.media':>13s} {'by CPU time':>12s} {'each, median':>13s}"
        print(f"{'':34s} {heads} {'other pictures':>15s} {'mean gap':>9s}")
        for name, row in rows.items():
            far, speed = checked[name][case], row.get("ms_per_window", row.get("frames_per_s", float("nan")))
            keys = ("beside_dyad_media", "by_processor_time", "median_by_processor_time")
            ratio, processor, each = (row.get(k, float("nan")) for k in keys)
            figures = f"{speed:13.1f} {ratio:13.2f} {processor:12.2f} {each:13.2f}"
            share = f"{far['other']}/{far['pictures']}"
            print(f"{name:34s} {figures} {share:>15s} {far['mean_difference']:9.2f}")


def main(argv: list[str] | None = None) -> int:
    """Find clips, check what is answered, time it, print, write."""
    config = parse(
        Config, argv, prog="python -m benchmarks.video_decoders", description=(__doc__ or "").splitlines()[0]
    )
    cv2.setNumThreads(1)
    found, absent = decoders()
    if unknown := sorted(set(config.only) - set(found)):
        raise ValueError(f"{', '.join(unknown)}: no such decoder; here are {', '.join(found)}")
    found = {n: d for n, d in found.items() if not config.only or n in ("dyad.media", *config.only)}
    for name in absent:
        print(f"{name}: not installed")
    with tempfile.TemporaryDirectory() as scratch:
        clips = find_clips(config, Path(scratch))
        longest = max(clips, key=lambda c: c.n_frames if c.width * c.height <= MODERATE_PX else 0)
        recording = long_recording(longest, Path(scratch) / "long.mp4", config.long_s)
        checked = check(found, cases(clips, recording, config, 1), variable_rate(Path(scratch) / "variable.mp4"))
        speed = {}
        for cores in (1, 2):
            if keep_on(cores):
                jobs = cases(clips, recording, config, cores)
                speed[cores] = summarise(measure(found, jobs, config.rounds), jobs)
                print_tables(cores, speed[cores], checked)
        keep_on(len(ALL_CORES))
    print(f"\n{'':34s} right at a variable rate; first fault")
    for name, facts in checked.items():
        print(f"{name:34s} {facts['right_at_a_variable_rate']:24.1%}  {next(iter(facts['faults'].values()), '')}")
    settings = as_dict(replace(config, clips=())) | {"clips": [c.path.name for c in clips]}
    settings.pop("out")
    result = {
        "decoders": list(found),
        "not_installed": absent,
        "versions": versions(),
        "clips": [{"name": c.path.name, "frames": c.n_frames, "width": c.width, "height": c.height} for c in clips],
        "window_recording": {"of": longest.path.name, "frames": recording.n_frames},
        "speed_by_cores": {str(k): v for k, v in speed.items()},
        "pictures_beside_dyad_media": checked,
    }
    write_json(config.out, {"run": run_card(command="benchmarks.video_decoders", config=settings)} | result)
    teacher = {k: v["whole clips, 5 a second, 224 px"] for k, v in speed.items()}
    print(json.dumps({"rounds": config.rounds, "clips": len(clips), "not_installed": absent, "teacher": teacher}))
    return 0


if __name__ == "__main__":
    run_main(main)
