"""How fast random 10 s windows are read, and what they cost on disk: soft labels, and the teacher's decoded media.

    python -m benchmarks.storage                  # some minutes; --clip FILE makes the media cache of a real recording

Soft labels are three tensors [T, 17] float32 a session, media pictures [K, size, size, 3] uint8 at 5 a second and sound
[S] float32. Formats take turns on the same windows, each copied into memory. Warm: read before. Cold: first dropped
from the page cache, as far as a user may (posix_fadvise; the disk's own caches stay). h5py and zarr are optional.
"""

import importlib.util
import json
import os
import shutil
import sys
import tempfile
import time
from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from benchmarks.storage_formats import Cuts, Format, Read, Tensors, label_formats, media_formats
from dyad import clock, media
from dyad.config import as_dict, parse, run_main
from dyad.provenance import run_card, write_json
from teacher.windows import square

UNITS = 17


@dataclass(frozen=True, kw_only=True)
class Config:
    """How much is stored, and how often it is read."""

    sessions: int = 300
    """Sessions of soft labels, 60 to 70 s each."""
    media_sessions: int = 8
    """Sessions of decoded media."""
    media_s: float = 60.0
    """Length of each, seconds."""
    sizes_px: tuple[int, ...] = (112, 224)
    """Picture sides."""
    windows: int = 200
    """Windows of labels a turn."""
    media_windows: int = 8
    """Windows of media a turn."""
    rounds: int = 7
    """Turns of every format."""
    clip: Path | None = None
    """A clip to make the media of; without it shapes are drawn."""
    scratch: Path | None = None
    """Where the files are written, on the disk in question; none: the system's temporary folder."""
    out: Path = Path(__file__).parent / "results" / "storage.json"
    """Results file."""


def made_labels(config: Config) -> list[Tensors]:
    """Random tensors of the shapes that `dyad.soft_labels` holds."""
    rng, names = np.random.default_rng(0), ("prob", "act_logit", "uncertainty")
    lengths = rng.integers(1800, 2101, config.sessions)
    return [{n: rng.random((int(length), UNITS), np.float32) for n in names} for length in lengths]


def make_recording(config: Config, path: Path) -> None:
    """The clip's pictures forth and back, or drawn shapes, as MP4; and noise as WAV."""
    n_frames = round(config.media_s * clock.FPS)
    if config.clip is not None:
        clip = [p[: p.shape[0] // 2 * 2, : p.shape[1] // 2 * 2] for p in media.read_video(config.clip, max_frames=600)]
    else:
        y, x = np.mgrid[0:240, 0:320]
        waves = (127 + 120 * np.sin((x + 3 * i) / 23) * np.cos((y - 2 * i) / 17) for i in range(120))
        clip = [np.repeat(w[..., None], 3, 2).astype(np.uint8) for w in waves]
    there_and_back = [*range(len(clip)), *range(len(clip) - 2, 0, -1)]
    media.write_video(path, (clip[there_and_back[t % len(there_and_back)]] for t in range(n_frames)))
    noise = np.random.default_rng(1).uniform(-0.5, 0.5, clock.samples_until(n_frames))
    media.write_wav(path.with_suffix(".wav"), noise.astype(np.float32))


def decoded(recording: Path, size_px: int) -> Tensors:
    """The teacher's pictures and sound."""
    pictures = [square(p, size_px) for t, p in media.iter_grid_frames(recording) if t % 6 == 0]
    return {"pictures": np.stack(pictures), "sound": media.read_audio(recording.with_suffix(".wav"))}


def cuts_of(tensors: Tensors, start: int, span: int) -> Cuts:
    """Where the window of `span` frames at frame `start` (a multiple of 6) lies in each tensor."""
    at = {n: slice(start, start + span) for n in tensors}
    if "pictures" in tensors:
        begin = clock.samples_until(start)
        at = {
            "pictures": slice(start // 6, (start + span) // 6),
            "sound": slice(begin, begin + clock.samples_until(span)),
        }
    return at


def draw(sessions: list[Tensors], count: int, rng: np.random.Generator) -> list[tuple[int, Cuts]]:
    """Random windows of 10 s, or of the shortest session."""
    lengths = [len(s["pictures"]) * 6 if "pictures" in s else len(next(iter(s.values()))) for s in sessions]
    span = min(10 * clock.FPS, min(lengths) // 6 * 6)
    picks = rng.integers(0, len(sessions), count).tolist()
    return [(i, cuts_of(sessions[i], int(rng.integers(0, (lengths[i] - span) // 6 + 1)) * 6, span)) for i in picks]


def evict(folder: Path) -> bool:
    """Drop a folder's files from the page cache; False where the system has no way for a user."""
    if sys.platform != "linux":
        return False
    for path in (p for p in folder.rglob("*") if p.is_file()):
        file = os.open(path, os.O_RDONLY)
        os.fsync(file)  # what is not on the disk yet cannot be dropped
        os.posix_fadvise(file, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(file)
    return True


def timed(read: Read, windows: list[tuple[int, Cuts]]) -> NDArray[np.float64]:
    """Seconds of wall and of processor time for all windows."""
    begin = time.perf_counter(), time.process_time()
    for i, cuts in windows:
        read(i, cuts)
    return np.subtract((time.perf_counter(), time.process_time()), begin)


def gap(read: Read, sessions: list[Tensors], windows: list[tuple[int, Cuts]]) -> float:
    """Largest difference between what is read and what was written."""
    pairs = [(t, sessions[i][n][cuts[n]]) for i, cuts in windows for n, t in read(i, cuts).items()]
    if odd := [(a.shape, b.shape) for a, b in pairs if a.shape != b.shape]:
        raise AssertionError(f"a format returns shapes {odd[0][0]} where {odd[0][1]} were written")
    return max(float(np.abs(a.astype(np.float64) - b).max()) for a, b in pairs)


def compare(
    formats: dict[str, Format], sessions: list[Tensors], root: Path, windows: int, rounds: int
) -> dict[str, dict[str, float]]:
    """Write each format, let them take turns, and give its row."""
    rows: dict[str, dict[str, float]] = {}
    rng, times = np.random.default_rng(2), dict[str, list[NDArray[np.float64]]]()
    for k, (name, kind) in enumerate(formats.items()):
        (root / str(k)).mkdir(parents=True)
        kind.write(root / str(k), sessions)
        size = sum(p.stat().st_size for p in (root / str(k)).rglob("*") if p.is_file())
        rows[name] = {"megabytes": round(size / 1e6, 2)}
        rows[name]["max_gap"] = gap(kind.open(root / str(k)), sessions, draw(sessions, 4, np.random.default_rng(3)))
    for _ in range(rounds):
        chosen = draw(sessions, windows, rng)
        for k, (name, kind) in enumerate(formats.items()):
            evict(root / str(k))
            read = kind.open(root / str(k))
            times.setdefault(name, []).append(np.stack([timed(read, chosen), timed(read, chosen)]))
    base = np.array(times[next(iter(formats))])
    for name, turns in times.items():
        own = np.array(turns)  # [rounds, (cold, warm), (wall, processor)]
        per_s, ratio = windows / np.median(own, axis=0), np.median(base / own, axis=0)
        rows[name] |= {"cold_per_s": round(float(per_s[0, 0]), 1), "warm_per_s": round(float(per_s[1, 0]), 1)}
        rows[name] |= {"cold_ratio": round(float(ratio[0, 0]), 3), "warm_ratio": round(float(ratio[1, 0]), 3)}
        rows[name]["warm_ratio_by_processor_time"] = round(float(ratio[1, 1]), 3)
    shutil.rmtree(root)
    return rows


def installed(formats: dict[str, Format]) -> tuple[dict[str, Format], list[str]]:
    """The formats whose libraries are there, and the names of the others."""
    needs = {"HDF5": "h5py", "zarr": "zarr", "Arrow IPC": "pyarrow", "Parquet": "pyarrow"}
    absent = [n for n in formats if n in needs and importlib.util.find_spec(needs[n]) is None]
    return {n: f for n, f in formats.items() if n not in absent}, absent


def print_table(title: str, rows: dict[str, dict[str, float]]) -> None:
    """Windows per second beside the first row's."""
    print(f"\n{title}")
    print(f"{'':30s} {'MB':>8s} {'warm /s':>9s} {'×':>6s} {'by CPU':>6s} {'cold /s':>9s} {'×':>6s} {'max gap':>9s}")
    for name, r in rows.items():
        warm = f"{r['warm_per_s']:9.0f} {r['warm_ratio']:6.2f} {r['warm_ratio_by_processor_time']:6.2f}"
        cold = f"{r['cold_per_s']:9.0f} {r['cold_ratio']:6.2f}"
        print(f"{name:30s} {r['megabytes']:8.1f} {warm} {cold} {r['max_gap']:9.2g}")


def main(argv: list[str] | None = None) -> int:
    """Labels, then media at each size; print, write."""
    config = parse(Config, argv, prog="python -m benchmarks.storage", description=(__doc__ or "").splitlines()[0])
    cv2.setNumThreads(1)
    with tempfile.TemporaryDirectory(dir=config.scratch) as scratch:
        root, recording = Path(scratch) / "formats", Path(scratch) / "recording.mp4"
        can_evict = evict(Path(scratch))
        found, absent = installed(label_formats())
        for name in absent:
            print(f"{name}: not installed")
        tables = {"soft labels": compare(found, made_labels(config), root, config.windows, config.rounds)}
        print_table(f"soft labels, {config.sessions} sessions", tables["soft labels"])
        make_recording(config, recording)
        for size_px in config.sizes_px:
            sessions = [decoded(recording, size_px)] * config.media_sessions
            found, _ = installed(media_formats(recording, size_px))
            title = f"media, 5 a second, {size_px} px"
            tables[title] = compare(found, sessions, root, config.media_windows, config.rounds)
            print_table(f"{title}, {config.media_sessions} sessions of {config.media_s:.0f} s", tables[title])
    if not can_evict:
        print("the page cache could not be dropped: cold is not cold")
    settings = as_dict(replace(config, clip=None, scratch=None)) | {"clip": config.clip.name if config.clip else ""}
    settings = {k: v for k, v in settings.items() if k not in ("out", "scratch")}
    result = {"windows_per_second": tables, "not_installed": absent, "page_cache_dropped": can_evict}
    write_json(config.out, {"run": run_card(command="benchmarks.storage", config=settings)} | result)
    print(json.dumps({"rounds": config.rounds} | result))
    return 0


if __name__ == "__main__":
    run_main(main)
