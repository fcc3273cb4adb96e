"""One pair becomes one session: its media checked and linked, its table put on the 30 Hz grid, or it is refused.

A refusal is a ValueError whose one sentence names the file, the value and the remedy. What may differ a little is
trimmed and noted. Shapes: T frames at 30 Hz, U units.
"""

import os
import shutil
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from dyad import media
from dyad.clock import FPS, SAMPLE_RATE_HZ, frames_in
from dyad.prepare.au_table import AUTable, holds_units, read_table
from dyad.prepare.pairs import Pair
from dyad.prepare.timing import on_grid
from dyad.session import Session

MAX_RATE_DIFFERENCE = 0.03
"""Relative difference up to which a table's frame rate and its video's are the same."""
SILENCE_PEAK = 1e-4
"""Sound that never exceeds this (−80 dBFS) is digital silence."""


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What still makes a session."""

    min_s: float = 2.0
    max_mismatch_s: float = 0.5
    au_names: tuple[str, ...]
    speakers_only: bool = False
    """Take clips without a listener: their units are all masked, and a teacher may label them."""


@dataclass(frozen=True)
class Built:
    """A session with its media below the dataset's folder, and what was noticed on the way."""

    session: Session
    dialect: str
    masked_rows: int
    unused_units: tuple[str, ...]
    notes: tuple[str, ...]


def attempt(pair: Pair, out: Path, limits: Limits) -> Built | str:
    """The built pair, or why it is refused. A full disk is no pair's fault and is raised."""
    try:
        return build(pair, out, limits)
    except ValueError as error:
        return str(error)


def build(pair: Pair, out: Path, limits: Limits) -> Built:
    """Check `pair`, put its media into `out/media` and its units onto the grid; raises ValueError to refuse it."""
    video = _one(pair, pair.speaker_videos, "video of the speaker", f"{pair.id}_speaker.mp4")
    sound = _one(pair, pair.speaker_sounds, "sound of the speaker") if pair.speaker_sounds else None
    listener = _one(pair, pair.listener_videos, "video of the listener") if pair.listener_videos else None
    listener_sound = _one(pair, pair.listener_sounds, "sound of the listener") if pair.listener_sounds else None
    table = None if limits.speakers_only else _read_units(pair, listener, limits)
    notes: list[str] = []
    video_s = video_length_s(video, limits)
    samples, sound_notes = voice(sound or video, video_s, limits)
    notes += sound_notes
    end_s = video_s if table is None else table.end_s
    n_frames = agreed_frames(end_s, table.path if table else video, video, video_s, limits, notes)
    full_prob, full_act = np.full((2, n_frames, len(limits.au_names)), np.nan, np.float32)
    if table is not None:
        prob, act = on_grid(table.times_s, table.prob, table.act, n_frames, row_s=table.row_s)
        columns = [limits.au_names.index(u) for u in table.units]
        full_prob[:, columns], full_act[:, columns] = prob, act
        if np.isnan(full_prob).all() and np.isnan(full_act).all():
            raise ValueError(f"{table.path}: every row is masked (no face found); film the listener again")
    session = Session(
        id=pair.id,
        speaker_video_path=place(video, out, f"{pair.id}_speaker"),
        speaker_audio_path=_place_voice(sound, samples, out, pair.id),
        listener_video_path=place(listener, out, f"{pair.id}_listener") if listener else None,
        listener_audio_path=place(listener_sound, out, f"{pair.id}_listener") if listener_sound else None,
        au_names=limits.au_names,
        prob=full_prob,
        act=full_act,
        fps=float(FPS),
        duration_s=n_frames / FPS,
        n_frames=n_frames,
    )
    session.validate()
    if table is None:
        return Built(session, "none: a speaker alone", 0, (), tuple(notes))
    if table.masked_rows:
        notes.append(f"{table.masked_rows} of {len(table.times_s)} rows without a face masked")
    return Built(session, table.dialect, table.masked_rows, table.unused, tuple(notes))


def _one(pair: Pair, files: list[Path], what: str, example: str = "") -> Path:
    if not files:
        here = ", ".join(p.name for p in pair.files())
        raise ValueError(f"{pair.id}: no {what} beside {here}; add it as {example}")
    if len(files) > 1:
        raise ValueError(f"{pair.id}: {len(files)} files for the {what}: {', '.join(map(str, files))}; keep one")
    return files[0]


def _read_units(pair: Pair, listener: Path | None, limits: Limits) -> AUTable:
    """The pair's only table of action units, of the same frame rate as the listener's video."""
    tables = pair.tables
    if len(tables) > 1:
        tables = [t for t in tables if holds_units(t)] or tables
    path = _one(pair, tables, "table of the listener's action units", f"{pair.id}_listener.csv")
    info = media.probe(listener) if listener else None
    if info is not None and not info.has_video:
        raise ValueError(f"{listener}: holds no pictures; give a video file or remove it")
    table = read_table(path, limits.au_names, video_fps=info.fps if info else None)
    if info is not None and info.fps > 0 and abs(table.frame_rate_hz / info.fps - 1) > MAX_RATE_DIFFERENCE:
        raise ValueError(
            f"{path}: {table.frame_rate_hz:.4g} frames per second, but {info.path.name} has {info.fps:.4g}; "
            "extract the units from this video again, or give the video that they were extracted from"
        )
    return table


def video_length_s(path: Path, limits: Limits) -> float:
    """Length of the pictures by decoding them all, seconds; a video that was cut off is refused."""
    info = media.probe(path)
    length_s = (1 + max(t for t, _ in media.iter_grid_frames(path))) / FPS
    if info.video_duration_s - length_s > limits.max_mismatch_s:
        raise ValueError(
            f"{path}: truncated: its header says {info.video_duration_s:.2f} s, but only {length_s:.2f} s can be "
            "decoded; copy or record it again"
        )
    return length_s


def voice(path: Path, video_s: float, limits: Limits) -> tuple[media.Sound, list[str]]:
    """The speaker's sound [S] at 16 kHz and notes on it; none or one of another length is refused."""
    samples = media.read_audio(path)
    if len(samples) == 0:
        raise ValueError(f"{path}: no sound in it (0 samples); add the voice as <id>_speaker.wav")
    length_s = len(samples) / SAMPLE_RATE_HZ
    if abs(length_s - video_s) > limits.max_mismatch_s:
        raise ValueError(
            f"{path}: {length_s:.2f} s of sound, but {video_s:.2f} s of pictures; "
            f"cut both to the same stretch (at most {limits.max_mismatch_s:g} s may differ)"
        )
    if not np.isfinite(samples).all():
        raise ValueError(f"{path}: sound holds NaN or infinity; export it again as 16-bit WAV")
    notes: list[str] = []
    if np.abs(samples).max() < SILENCE_PEAK:
        notes.append("silent: the speaker's sound is digital silence")
    if video_s - length_s > 1.0 / FPS:
        notes.append(f"sound ends {video_s - length_s:.2f} s before the pictures; silence follows")
    return samples, notes


def agreed_frames(table_s: float, path: Path, video: Path, video_s: float, limits: Limits, notes: list[str]) -> int:
    """Frames that both the table and the speaker's video cover; refuses a large difference and a short rest."""
    if abs(table_s - video_s) > limits.max_mismatch_s:
        raise ValueError(
            f"{path}: {table_s:.2f} s of action units, but {video.name} has {video_s:.2f} s; "
            f"cut both to the same stretch (at most {limits.max_mismatch_s:g} s may differ)"
        )
    n_frames = min(frames_in(table_s), round(video_s * FPS))
    if n_frames / FPS < limits.min_s:
        raise ValueError(
            f"{path}: a session of {n_frames / FPS:.2f} s, shorter than {limits.min_s:g} s; "
            "join it to its neighbours or lower --min-seconds"
        )
    longest_s = max(table_s, video_s)
    if longest_s - n_frames / FPS > 1.0 / FPS:
        notes.append(f"trimmed to the shorter of table ({table_s:.2f} s) and video ({video_s:.2f} s)")
    return n_frames


def place(source: Path, out: Path, stem: str) -> Path:
    """Put a file into the dataset: a hard link where the disk allows it, else a copy."""
    target = out / "media" / f"{stem}{source.suffix.lower()}"
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        os.link(source.resolve(), target)
    except OSError:  # another disk, or one without hard links
        shutil.copyfile(source, target)
    return target


def _place_voice(sound: Path | None, samples: media.Sound, out: Path, pair_id: str) -> Path:
    """The speaker's own sound file, or the video's sound track as 16 kHz mono WAV."""
    if sound is not None:
        return place(sound, out, f"{pair_id}_speaker")
    target = out / "media" / f"{pair_id}_speaker.wav"
    target.parent.mkdir(parents=True, exist_ok=True)
    media.write_wav(target, samples)
    return target
