"""The teacher's media cache gives the same windows as decoding, reads no more than a window, and mends itself."""

import dataclasses
import json
import os
from pathlib import Path

import av
import cv2
import numpy as np
import pytest

from dyad import media
from dyad.session import Session
from teacher import dataset
from teacher.windows import SpeakerMedia, WindowSpec, cut, read_speaker

SPEC = WindowSpec(frames=60, video_fps=5, size_px=28)


def record(root: Path, *, seconds: int = 4, sound: bool = True, seed: int = 0) -> Session:
    """A clip of noise, wider than high, with a sound file beside it."""
    rng = np.random.default_rng(seed)
    pictures = rng.integers(0, 256, (30 * seconds, 48, 64, 3), dtype=np.uint8)
    media.write_video(root / "s.mp4", pictures)
    media.write_wav(root / "s.wav", rng.uniform(-0.5, 0.5, 16000 * seconds if sound else 0).astype(np.float32))
    labels = np.zeros((30 * seconds, 17), np.float32)
    return Session(
        id="s",
        speaker_video_path=root / "s.mp4",
        speaker_audio_path=root / "s.wav",
        listener_video_path=None,
        listener_audio_path=None,
        au_names=tuple(f"AU{i}" for i in range(17)),
        prob=labels,
        act=labels,
        fps=30.0,
        duration_s=float(seconds),
        n_frames=30 * seconds,
    )


def entry(root: Path) -> Path:
    return next((root / "cache").glob("teacher-*/s"))


def by_hand(path: Path) -> np.ndarray:
    """The fourth of every six pictures at 30 Hz, converted by PyAV alone, cut square, made small: [K, 28, 28, 3]."""
    with av.open(str(path)) as container:
        pictures = [f.to_ndarray(format="rgb24") for i, f in enumerate(container.decode(video=0)) if i % 6 == 3]
    squares = [p[:, (p.shape[1] - p.shape[0]) // 2 :][:, : p.shape[0]] for p in pictures]
    return np.stack([cv2.resize(s, (28, 28), interpolation=cv2.INTER_AREA) for s in squares])


def assert_same(a: SpeakerMedia, b: SpeakerMedia) -> None:
    np.testing.assert_array_equal(a.pictures, b.pictures)
    np.testing.assert_array_equal(a.sound, b.sound)
    assert a.n_frames == b.n_frames


def test_the_picture_in_the_middle_of_each_slot_is_taken_square_and_small(tmp_path: Path) -> None:
    session = record(tmp_path)
    read = read_speaker(session, SPEC)
    np.testing.assert_array_equal(read.pictures, by_hand(session.speaker_video_path))
    assert read.n_frames == 120


def test_what_the_cache_gives_is_what_decoding_gives(tmp_path: Path) -> None:
    session = record(tmp_path)
    fresh = read_speaker(session, SPEC)
    for _ in range(2):
        assert_same(dataset.cached_speaker(tmp_path, session, SPEC), fresh)
    for start in (0, 24, 60, 96):
        kept = cut(dataset.cached_speaker(tmp_path, session, SPEC), start, SPEC)
        for a, b in zip(kept, cut(fresh, start, SPEC), strict=True):
            np.testing.assert_array_equal(a, b)
            assert a.dtype == b.dtype


def test_a_window_is_read_without_the_rest_of_its_session(tmp_path: Path) -> None:
    session = record(tmp_path)
    dataset.cached_speaker(tmp_path, session, SPEC)
    kept = dataset.cached_speaker(tmp_path, session, SPEC)
    assert isinstance(kept.pictures, np.memmap)
    assert isinstance(kept.sound, np.memmap)
    assert type(cut(kept, 24, SPEC)[0]) is np.ndarray  # a copy: the file may go away


def test_the_clip_is_decoded_once_and_again_when_it_has_changed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    session, decoded = record(tmp_path), []

    def counted(session: Session, spec: WindowSpec) -> SpeakerMedia:
        decoded.append(session.id)
        return read_speaker(session, spec)

    monkeypatch.setattr(dataset, "read_speaker", counted)
    for _ in range(3):
        dataset.cached_speaker(tmp_path, session, SPEC)
    assert decoded == ["s"]
    other = record(tmp_path, seed=1)
    os.utime(other.speaker_video_path, (1, 1))
    seen = dataset.cached_speaker(tmp_path, other, SPEC)
    assert decoded == ["s", "s"]
    assert_same(seen, read_speaker(other, SPEC))


def test_a_session_without_sound_is_kept_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    session = record(tmp_path, sound=False)
    assert len(dataset.cached_speaker(tmp_path, session, SPEC).sound) == 0
    monkeypatch.setattr(dataset, "read_speaker", None)  # asking again would fail
    assert not cut(dataset.cached_speaker(tmp_path, session, SPEC), 0, SPEC)[1].any()


@pytest.mark.parametrize("name", ["pictures.npy", "sound.npy", "meta.json"])
@pytest.mark.parametrize("damage", ["cut off", "empty", "gone"])
def test_a_damaged_entry_is_made_again(tmp_path: Path, name: str, damage: str) -> None:
    session = record(tmp_path)
    whole = read_speaker(session, SPEC)
    dataset.cached_speaker(tmp_path, session, SPEC)
    path = entry(tmp_path) / name
    content = path.read_bytes()
    path.unlink()
    if damage != "gone":
        path.write_bytes(content[: len(content) // 2] if damage == "cut off" else b"")
    assert_same(dataset.cached_speaker(tmp_path, session, SPEC), whole)
    assert path.read_bytes() == content


def test_an_interrupted_write_leaves_no_entry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    session = record(tmp_path)

    def killed(*_: object) -> str:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(json, "dumps", killed)
        with pytest.raises(KeyboardInterrupt):
            dataset.cached_speaker(tmp_path, session, SPEC)
    assert not list((tmp_path / "cache").glob("teacher-*/*"))
    assert_same(dataset.cached_speaker(tmp_path, session, SPEC), read_speaker(session, SPEC))


def test_a_session_whose_clip_cannot_be_read_is_named_and_the_others_are_kept(tmp_path: Path) -> None:
    good = record(tmp_path)
    (tmp_path / "no.mp4").write_bytes(b"no clip")
    bad = dataclasses.replace(good, id="bad", speaker_video_path=tmp_path / "no.mp4")
    ready, failed = dataset.read_all(tmp_path, [good, bad], SPEC)
    assert [s.id for s, _ in ready] == ["s"]
    assert "no.mp4: not a readable video" in failed["bad"]
