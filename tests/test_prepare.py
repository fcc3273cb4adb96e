"""`dyad.prepare` takes what is whole, refuses the rest by name, and leaves nothing half-written."""

import dataclasses
import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from dyad import media
from dyad.action_units import SEED17
from dyad.layouts import processed
from dyad.prepare.__main__ import main
from dyad.prepare.pairs import find_pairs, role_and_id

SECONDS = 3


@dataclasses.dataclass(frozen=True)
class Whole:
    """Files of a faultless pair, to be copied and then damaged."""

    video: Path
    silent_video: Path
    wav: Path
    csv: str


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Whole:
    folder = tmp_path_factory.mktemp("whole")
    rng = np.random.default_rng(0)
    sound = (0.3 * np.sin(np.arange(SECONDS * 16000) / 8)).astype(np.float32)
    pictures = rng.integers(0, 255, (SECONDS * 30, 48, 64, 3), dtype=np.uint8)
    media.write_video(folder / "video.mp4", pictures, audio=sound)
    media.write_video(folder / "silent.mp4", pictures)
    media.write_wav(folder / "voice.wav", sound)
    return Whole(folder / "video.mp4", folder / "silent.mp4", folder / "voice.wav", openface(SECONDS * 30))


def openface(n_rows: int, rate_hz: float = 30.0, *, unit: str = "AU12_r") -> str:
    lines = [f"{i + 1},{i / rate_hz:.3f},1,{2 + np.sin(i / 9):.3f}" for i in range(n_rows)]
    return "\n".join([f"frame,timestamp,success,{unit}", *lines]) + "\n"


def add(raw: Path, name: str, whole: Whole, *, csv: str | None = None) -> None:
    raw.mkdir(exist_ok=True)
    shutil.copy(whole.video, raw / f"{name}_speaker.mp4")
    (raw / f"{name}_listener.csv").write_text(whole.csv if csv is None else csv, encoding="utf8")


def prepare(tmp_path: Path, *flags: str) -> tuple[int, dict]:
    """Status and report."""
    out = tmp_path / "out"
    status = main([str(tmp_path / "raw"), str(out), "--workers", "1", *flags])
    return status, json.loads((out / "report.json").read_text(encoding="utf8"))


def reason(report: dict, name: str) -> str:
    (found,) = [r["reason"] for r in report["refused"] if r["id"] == name]
    return found


def test_whole_pairs_become_a_dataset_that_may_be_moved(tmp_path: Path, whole: Whole) -> None:
    for name in ("s01", "s02", "s03"):
        add(tmp_path / "raw", name, whole)
    status, report = prepare(tmp_path)
    assert (status, report["counts"]["taken"], report["run"]["command"]) == (0, 3, "dyad.prepare")
    shutil.rmtree(tmp_path / "raw")
    (tmp_path / "out").rename(tmp_path / "moved")
    sessions = [s for split in ("train", "val") for s in processed.load(tmp_path / "moved", split)]
    assert sorted(s.id for s in sessions) == ["s01", "s02", "s03"]
    for session in sessions:
        assert media.read_video(session.speaker_video_path).shape[0] == session.n_frames == 90
        assert len(media.read_audio(session.speaker_audio_path)) == pytest.approx(48000, abs=1100)
        column = session.prob[:, SEED17.index("AU12")]
        np.testing.assert_allclose(column, (2 + np.sin(np.arange(90) / 9)) / 5, atol=2e-4)
        assert np.isnan(session.prob[:, SEED17.index("AU18")]).all()


def damaged_pairs(raw: Path, whole: Whole) -> dict[str, str]:
    """Write one pair for each fault; returns what its refusal must say."""
    said: dict[str, str] = {}

    def pair(name: str, wanted: str, csv: str | None = None) -> str:
        add(raw, name, whole, csv=csv)
        said[name] = wanted
        return str(raw / name)

    pair("au99", "au99_listener.csv: column 'AU99_r' names AU99", openface(90, unit="AU99_r"))
    pair("nan", "nan_listener.csv: column 'AU12_r', row 5: nan is not a number", whole.csv.replace("2.430", "nan"))
    doubled = whole.csv.replace("success", "timestamp", 1)
    pair("doubled", "doubled_listener.csv: 2 columns are called 'timestamp', wanted one", doubled)
    pair("long", "5.00 s of action units, but long_speaker.mp4 has 3.00 s", openface(150))
    at = pair("short", "a session of 1.00 s, shorter than 2 s", openface(30))
    media.write_video(
        f"{at}_speaker.mp4", media.read_video(whole.video)[:30], audio=media.read_audio(whole.wav)[:16000]
    )
    at = pair("truncated", "truncated_speaker.mp4: truncated: its header says 3.00 s, but only")
    cut = whole.video.read_bytes()
    Path(f"{at}_speaker.mp4").write_bytes(cut[: len(cut) // 2])
    at = pair("garbage", "garbage_speaker.mp4: not a readable video")
    Path(f"{at}_speaker.mp4").write_bytes(b"no clip" * 99)
    at = pair("mute", "mute_speaker.mp4: no sound in it (0 samples); add the voice as <id>_speaker.wav")
    shutil.copy(whole.silent_video, f"{at}_speaker.mp4")
    at = pair("zero", "zero_speaker.wav: no sound in it (0 samples)")
    Path(f"{at}_speaker.wav").touch()
    at = pair("brief", "brief_speaker.wav: 1.00 s of sound, but 3.00 s of pictures")
    media.write_wav(f"{at}_speaker.wav", media.read_audio(whole.wav)[:16000])
    at = pair("rate", "rate_listener.csv: 60 frames per second, but rate_listener.mp4 has 30", openface(180, 60.0))
    shutil.copy(whole.video, f"{at}_listener.mp4")
    at = pair("twice", "2 files for the video of the speaker")
    shutil.copy(whole.video, f"{at}_speaker.mkv")
    at = pair("faceless", "every row is masked (no face found)", whole.csv.replace(",1,", ",0,"))
    at = pair("alone", "alone: no video of the speaker beside alone_listener.csv; add it as alone_speaker.mp4")
    Path(f"{at}_speaker.mp4").unlink()
    at = pair("unlabelled", "unlabelled: no table of the listener's action units beside unlabelled_speaker.mp4")
    Path(f"{at}_listener.csv").unlink()
    return said


def test_every_fault_is_refused_in_one_sentence_and_the_rest_goes_on(
    tmp_path: Path, whole: Whole, capsys: pytest.CaptureFixture[str]
) -> None:
    raw = tmp_path / "raw"
    for name in ("good1", "good2"):
        add(raw, name, whole)
    said = damaged_pairs(raw, whole)
    status, report = prepare(tmp_path)
    assert status == 3
    assert {e["id"] for e in report["taken"]} == {"good1", "good2"}
    assert {r["id"] for r in report["refused"]} == set(said)
    for name, wanted in said.items():
        assert wanted in reason(report, name)
        assert "\n" not in reason(report, name)
    shown = capsys.readouterr().out
    assert f"{len(said) + 2} pairs: 2 taken, {len(said)} refused" in shown
    assert all(reason(report, name) in shown for name in said)
    kept = {p.name for p in (tmp_path / "out" / "media").iterdir()}
    assert kept == {f"good{i}_speaker.{kind}" for i in (1, 2) for kind in ("mp4", "wav")}


def test_small_differences_are_trimmed_and_silence_is_noted(tmp_path: Path, whole: Whole) -> None:
    raw = tmp_path / "raw"
    add(raw, "trim", whole, csv=openface(80))
    add(raw, "silent", whole)
    media.write_wav(raw / "silent_speaker.wav", np.zeros(45000, np.float32))
    status, report = prepare(tmp_path)
    notes = {e["id"]: "; ".join(e["notes"]) for e in report["taken"]}
    assert status == 0
    assert "trimmed to the shorter of table (2.67 s) and video (3.00 s)" in notes["trim"]
    assert "silent: the speaker's sound is digital silence" in notes["silent"]
    assert "sound ends 0.19 s before the pictures" in notes["silent"]
    assert {e["id"]: e["n_frames"] for e in report["taken"]} == {"trim": 80, "silent": 90}


def test_nothing_usable_writes_nothing_and_leaves_an_earlier_dataset(tmp_path: Path, whole: Whole) -> None:
    add(tmp_path / "raw", "s01", whole)
    prepare(tmp_path)
    (tmp_path / "raw" / "s01_listener.csv").write_text("a,b\n", encoding="utf8")
    with pytest.raises(ValueError, match="nothing usable, so nothing is written"):
        prepare(tmp_path)
    assert [s.id for s in processed.load(tmp_path / "out", "train")] == ["s01"]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["out", "raw"]


def test_a_folder_of_something_else_is_never_replaced(tmp_path: Path, whole: Whole) -> None:
    add(tmp_path / "raw", "s01", whole)
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "diary.txt").touch()
    with pytest.raises(ValueError, match="neither empty nor a dataset of this command"):
        main([str(tmp_path / "raw"), str(tmp_path / "out")])
    with pytest.raises(ValueError, match="holds the recordings themselves"):
        main([str(tmp_path / "raw"), str(tmp_path)])
    with pytest.raises(ValueError, match="no such folder; give the folder of recordings"):
        main([str(tmp_path / "gone"), str(tmp_path / "new")])
    assert (tmp_path / "out" / "diary.txt").is_file()


def test_a_place_that_cannot_be_written_ends_in_one_sentence(tmp_path: Path, whole: Whole) -> None:
    add(tmp_path / "raw", "s01", whole)
    (tmp_path / "file").touch()
    command = [sys.executable, "-m", "dyad.prepare", str(tmp_path / "raw"), str(tmp_path / "file" / "out")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr.startswith(f"error: {tmp_path / 'file'}")
    assert done.stderr.count("\n") == 1


def test_a_kill_leaves_no_dataset_and_the_next_run_makes_the_whole(tmp_path: Path, whole: Whole) -> None:
    add(tmp_path / "raw", "s01", whole)
    code = (
        "import os, sys; from dyad.layouts import processed\n"
        "def write(*args, **options): os.kill(os.getpid(), 9)\n"
        "processed.write = write\n"
        "from dyad.prepare.__main__ import main; main(sys.argv[1:])"
    )
    command = [sys.executable, "-c", code, str(tmp_path / "raw"), str(tmp_path / "out"), "--workers", "1"]
    done = subprocess.run(command, capture_output=True, check=False)
    assert done.returncode == -signal.SIGKILL
    assert not (tmp_path / "out").exists()
    assert prepare(tmp_path)[0] == 0
    assert sorted(os.listdir(tmp_path)) == ["out", "raw"]  # noqa: PTH208 - names are all that is wanted


def test_the_split_depends_on_the_id_alone_and_never_moves(tmp_path: Path) -> None:
    from dyad.prepare.__main__ import split

    def place(names: list[str]) -> dict[str, str]:
        stubs = [type("B", (), {"session": type("S", (), {"id": n})})() for n in names]
        return {b.session.id: s for s, group in split(stubs, 0.2).items() for b in group}

    names = [f"s{i:03d}" for i in range(200)]
    whole_split, half = place(names), place(names[::-2])
    assert 20 < sum(s == "val" for s in whole_split.values()) < 60
    assert all(whole_split[n] == s for n, s in half.items())
    assert set(place(["a", "b"]).values()) == {"train", "val"}
    assert place(["a"]) == {"a": "train"}


@pytest.mark.parametrize(
    ("path", "role", "name"),
    [
        ("s01_speaker.mp4", "speaker", "s01"),
        ("s01/speaker.wav", "speaker", "s01"),
        ("speakers/s01.mp4", "speaker", "s01"),
        ("s01_listener.openface.csv", "listener", "s01"),
        ("s01_listener_au.csv", "listener", "s01"),
        ("listener/s01.csv", "listener", "s01"),
        ("listener_s01.csv", "listener", "s01"),
        ("day 1/s01-speaker.mp4", "speaker", "day_1_s01"),
        ("dyad_7_00001_speaker.mp4", "speaker", "dyad_7_00001"),
        ("au/p0.openface.csv", None, "p0"),
        ("loudspeaker.mp4", None, "loudspeaker"),
    ],
)
def test_roles_and_ids_are_read_from_names_and_folders(path: str, role: str | None, name: str) -> None:
    assert role_and_id(Path(path)) == (role, name)


def test_files_in_three_layouts_pair_up_and_hidden_ones_are_left_out(tmp_path: Path) -> None:
    layouts = {
        "a": ("a_speaker.mp4", "a_listener.csv"),
        "b": ("b/speaker.mp4", "b/listener.csv"),
        "c": ("speakers/c.mp4", "listeners/c.csv"),
    }
    for name in [*(n for pair in layouts.values() for n in pair), ".cache/x.mp4", "notes.txt", "speakers/c.csv"]:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    pairs, unused = find_pairs(tmp_path)
    assert {p.id: (len(p.speaker_videos), len(p.tables)) for p in pairs} == dict.fromkeys("abc", (1, 1))
    assert unused == [tmp_path / "speakers" / "c.csv"]


def test_real_recordings_are_taken_where_whole_and_refused_by_name_elsewhere(tmp_path: Path, real_data: Path) -> None:
    raw = tmp_path / "raw"
    raw.mkdir()
    files = {
        "opendbm_speaker.mp4": "speakers/videoretalking_3.mp4",
        "opendbm_listener.mp4": "listeners/opendbm_subj02_timepoint01.mp4",
        "opendbm_listener.openface.csv": "listeners/opendbm_subj02_timepoint01.openface.csv",
        "opendbm_listener.blendshapes.csv": "listeners/opendbm_subj02_timepoint01.blendshapes.csv",
        "grid_speaker.mpg": "speakers/grid_bbaf2n.mpg",
        "grid_listener.csv": "au/pyfeat_news_sample.csv",
        "p0_listener.csv": "dyads/facsvatar_2people/p0.openface.csv",
        "odd_speaker.mp4": "speakers/videoretalking_1.mp4",
        "odd_listener.csv": "au/facsvatar_demo.csv",
    }
    for name, source in files.items():
        shutil.copy(real_data / source, raw / name)
    status, report = prepare(tmp_path)
    (taken,) = report["taken"]
    assert (status, taken["id"], taken["n_frames"], taken["masked_units"]) == (3, "opendbm", 148, ["AU18"])
    assert report["unused_units"] == {"AU28": 1, "AU45": 1}
    assert "holds 20 clips" in reason(report, "grid")
    assert "no video of the speaker beside p0_listener.csv" in reason(report, "p0")
    assert "19.60 s of action units, but odd_speaker.mp4 has 6.13 s" in reason(report, "odd")
    (session,) = processed.load(tmp_path / "out", "train")
    assert processed.load(tmp_path / "out", "val") == []
    wanted = np.loadtxt(raw / "opendbm_listener.openface.csv", delimiter=",", skiprows=1, usecols=(12, 29))
    np.testing.assert_allclose(session.prob[:, SEED17.index("AU1")], wanted[:, 0] / 5, atol=1e-6)
    np.testing.assert_array_equal(session.act[:, SEED17.index("AU1")], wanted[:, 1])
