"""What ships: the packaged engine answers the packaged clip, is small, and says where it comes from."""

import json
from pathlib import Path

import numpy as np
import pytest

from deploy import engines, run
from deploy.manifest import Manifest
from dyad import media
from dyad.action_units import SEED17
from student.frontend import Frontend, audio_window

ENGINE, CLIP = run.ASSETS / "engine", run.ASSETS / "clip.mp4"


def test_the_packaged_student_is_small_whole_and_made_of_synthetic_dyads() -> None:
    manifest = Manifest.read(ENGINE)
    assert (ENGINE / manifest.model).stat().st_size <= 8_000_000
    assert manifest.precision == "int8"
    assert manifest.parity["mean"] <= 0.005
    assert manifest.spec.au_names == SEED17.units
    assert "Synthetic dyads only" in (run.ASSETS / "MODEL_CARD.md").read_text(encoding="utf8")
    assert "/home" not in json.dumps(manifest.run)


def test_the_packaged_clip_is_short_and_has_a_voice() -> None:
    assert media.probe(CLIP).duration_s <= 13
    assert np.abs(media.read_audio(CLIP)).max() > 0.05


def test_one_command_shows_a_face_and_moves_the_head(tmp_path: Path) -> None:
    where = tmp_path / "report.json"
    flags = ["--robot", "--seconds", "2", "--save", str(tmp_path / "run.mp4"), "--report", str(where)]
    assert run.main(flags) == 0
    report = json.loads(where.read_text(encoding="utf8"))
    assert report["face_share"] > 0.9
    assert report["ticks"] + report["missed_ticks"] >= 59
    assert (tmp_path / "run.mp4").stat().st_size > 20_000


def test_the_packaged_student_reacts_to_its_clip_and_rests_in_the_dark() -> None:
    engine = engines.load(ENGINE)
    spec, sound = engine.manifest.spec, media.read_audio(CLIP)
    front, state, said = Frontend(spec), engine.init_state(), []
    for t, picture in media.iter_grid_frames(CLIP):
        seen = front.step(picture, audio_window(sound, t, spec))
        logits, state = engine.step({"frame_u8": seen.frame, "audio": seen.audio, "present": seen.present}, state)
        said.append(1 / (1 + np.exp(-logits[0, :, 0])))
    moved = np.ptp(np.array(said[30:]), axis=0)
    assert moved[SEED17.index("AU12")] > 0.3
    assert (moved > 0.1).sum() >= 4
    dark, state = [], engine.init_state()
    blank = {
        "frame_u8": np.zeros_like(seen.frame),
        "audio": np.zeros_like(seen.audio),
        "present": np.zeros(2, np.float32),
    }
    for _ in range(120):
        logits, state = engine.step(blank, state)
        dark.append(1 / (1 + np.exp(-logits[0, :, 0])))
    assert np.ptp(np.array(dark[60:]), axis=0).max() < 0.1


@pytest.mark.parametrize("clip", ["grid_bbaf2n.mpg", "videoretalking_1.mp4", "latentsync_demo2.mp4"])
def test_real_people_at_odd_rates_and_sizes_get_finite_answers(real_data: Path, tmp_path: Path, clip: str) -> None:
    where = tmp_path / "report.json"
    flags = ["--robot", "sim", "--no-video", "--seconds", "1.5", "--report", str(where)]
    assert run.main([*flags, "--source", str(real_data / "speakers" / clip)]) == 0
    report = json.loads(where.read_text(encoding="utf8"))
    assert report["refused_frames"] == 0
    assert -1 <= report["share_min"] <= report["share_max"] <= 1
    assert report["fastest_of_limit"] <= 1 + 1e-6
