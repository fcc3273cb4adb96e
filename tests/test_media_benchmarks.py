"""The benchmarks of decoders and of storage run at toy size, and judge by what is read, not by who reads it."""

import json
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from benchmarks import decoders, storage, storage_formats, video_decoders
from benchmarks.decoders import Clip, Picture, Wanted
from dyad.provenance import read_json


def last_line(capsys: pytest.CaptureFixture[str]) -> dict[str, object]:
    return json.loads(capsys.readouterr().out.splitlines()[-1])


def test_the_decoders_benchmark_runs_on_a_made_clip_and_names_what_is_not_installed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sizes = ["--rounds", "1", "--max-frames", "12", "--long-s", "2", "--windows", "1"]
    assert video_decoders.main([*sizes, "--out", str(tmp_path / "r.json")]) == 0
    said, kept = last_line(capsys), read_json(tmp_path / "r.json")
    assert said["not_installed"] == kept["not_installed"]
    assert {"machine", "time_utc"} <= set(kept["run"])
    assert not any(str(tmp_path) in line for line in (tmp_path / "r.json").read_text().splitlines())
    checked = kept["pictures_beside_dyad_media"]
    for case in kept["speed_by_cores"]["1"]:
        assert checked["PyAV, wanted pixels only"][case]["other"] == 0
        assert kept["speed_by_cores"]["1"][case]["dyad.media"]["beside_dyad_media"] == 1
    assert checked["dyad.media"]["right_at_a_variable_rate"] == 1


@pytest.mark.parametrize("number", [0, 1, 77, 255])
def test_a_numbered_picture_is_read_back(number: int) -> None:
    assert video_decoders.number_of(video_decoders.numbered(number)) == number


@pytest.mark.parametrize("grid", [range(60), range(0, 60, 6), range(13, 40, 3)])
def test_a_grid_frame_shows_the_latest_picture_of_its_middle(grid: range) -> None:
    ticks = np.cumsum(np.random.default_rng(0).integers(1, 19, 25)).tolist()
    timed = [(tick / 90, i) for i, tick in enumerate(ticks)]
    wanted = []
    for t in grid:
        before = [i for i, tick in enumerate(ticks) if Fraction(tick, 90) <= Fraction(2 * t + 1, 60)]
        wanted.append((before[-1], False) if before else (0, True))
    assert list(decoders.on_grid(iter(timed), grid)) == wanted


def counted(clip: Clip, wanted: Wanted) -> Iterator[Picture]:
    """A decoder that takes pictures by their number, as if the rate were steady."""
    pictures = [p for _, p in zip(range(clip.n_frames), every_picture(clip), strict=False)]
    for t in wanted.grid:
        yield pictures[min(t * len(pictures) // clip.n_frames, len(pictures) - 1)]


def every_picture(clip: Clip) -> Iterator[Picture]:
    import av

    with av.open(str(clip.path)) as container:
        for frame in container.decode(video=0):
            yield np.asarray(frame.to_ndarray(format="rgb24"), np.uint8)


def failing(clip: Clip, wanted: Wanted) -> Iterator[Picture]:
    raise RuntimeError("no such codec\nand more")
    yield


def test_a_decoder_that_counts_pictures_or_fails_is_told_from_one_that_heeds_time_stamps(tmp_path: Path) -> None:
    variable = video_decoders.variable_rate(tmp_path / "v.mp4")
    found = {"dyad.media": decoders.through_media, "counted": counted, "failing": failing}
    jobs = {"whole": [(variable, Wanted(0, 60))]}
    checked = video_decoders.check(found, jobs, variable)
    assert checked["dyad.media"]["right_at_a_variable_rate"] == 1
    assert checked["counted"]["right_at_a_variable_rate"] < 0.6
    assert checked["counted"]["whole"]["clips_that_differ"] == ["v.mp4"]
    assert checked["failing"]["faults"] == {"v.mp4": "v.mp4: no such codec"}
    table = video_decoders.summarise(video_decoders.measure(found, jobs, 2), jobs)
    assert table["whole"]["failing"] == {"failed": 1}
    assert table["whole"]["counted"]["failed"] == 0
    with pytest.raises(ValueError, match="no such decoder"):
        video_decoders.main(["--only", "counted", "--out", str(tmp_path / "r.json")])


def test_a_folder_without_clips_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no clip there"):
        video_decoders.find_clips(video_decoders.Config(clips=(tmp_path,)), tmp_path)


def test_the_storage_benchmark_runs_and_every_lossless_format_gives_back_what_was_written(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sizes = ["--sessions", "2", "--media-sessions", "2", "--media-s", "3", "--sizes-px", "28", "--rounds", "2"]
    flags = ["--windows", "2", "--media-windows", "1", "--scratch", str(tmp_path), "--out", str(tmp_path / "r.json")]
    assert storage.main([*sizes, *flags]) == 0
    said, kept = last_line(capsys), read_json(tmp_path / "r.json")
    assert said["windows_per_second"] == kept["windows_per_second"]
    assert [p.name for p in tmp_path.iterdir()] == ["r.json"]
    for rows in kept["windows_per_second"].values():
        for name, row in rows.items():
            lossy = 1e-3 if "float16" in name else 30 if "JPEG" in name else 0
            assert row["max_gap"] <= lossy
            assert row["megabytes"] > 0
    labels = kept["windows_per_second"]["soft labels"]
    assert labels["safetensors a session"]["warm_ratio"] == 1
    assert len(labels) + len(kept["not_installed"]) == len(storage_formats.label_formats())


def test_windows_of_labels_and_media_lie_at_the_same_time() -> None:
    session = {"pictures": np.zeros((100, 2, 2, 3)), "sound": np.zeros(320000)}
    assert storage.cuts_of(session, 36, 300) == {"pictures": slice(6, 56), "sound": slice(19200, 179200)}
    assert storage.cuts_of({"prob": np.zeros((600, 17))}, 36, 300) == {"prob": slice(36, 336)}


def one_number(folder: Path) -> storage_formats.Read:
    """A reader that knows nothing of windows."""

    def read(i: int, cuts: storage_formats.Cuts) -> storage_formats.Tensors:
        return {name: np.ones((1, 17), np.float32) for name in cuts}

    return read


def test_a_format_that_returns_another_shape_is_not_timed(tmp_path: Path) -> None:
    sessions = [{"prob": np.ones((60, 17), np.float32)}]
    wrong = storage_formats.Format(storage_formats.write_npy, one_number)
    with pytest.raises(AssertionError, match="returns shapes"):
        storage.compare({"wrong": wrong}, sessions, tmp_path / "f", 1, 1)
