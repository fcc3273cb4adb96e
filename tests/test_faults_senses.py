"""What goes wrong with recordings and with whom they show, followed through the loop to the robot: never the end."""

import itertools
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import tiny_engine
from numpy.typing import NDArray
from test_faces_watcher import LEFT, RIGHT, SEARCH_FRAMES, actor, scene
from test_sources_faults import even, film, noise

from deploy import engines, robots, run
from deploy.link import LocalLink
from deploy.loop import Loop
from deploy.motion.states import Status
from deploy.sources import Packet
from deploy.sources.file import FileSource
from dyad import media
from dyad.clock import FPS, SAMPLE_RATE_HZ, FakeClock, audio_end
from student.face import HOLD_FRAMES
from student.frontend import audio_window
from student.spec import StudentSpec

SPEC = StudentSpec()
Picture = NDArray[np.uint8]
LOUD = noise(1.0)[:800]


def smiling(spec: StudentSpec = SPEC) -> tiny_engine.FakeEngine:
    """An engine that always says the same."""
    return tiny_engine.FakeEngine(lambda *_: tiny_engine.logits(spec, 0.8), spec)


class Rig:
    """A loop to a robot on a clock that moves when told."""

    def __init__(self, engine: Any = None, clock: Any = None, robot: str = "sim") -> None:
        self.clock, self.engine = clock or FakeClock(), engine or smiling()
        self.link = LocalLink(robots.load(robot), self.clock)
        self.loop = Loop(self.engine, self.link, self.clock)
        self.link.open(self.clock.now_s())

    def follow(self, source: Any) -> None:
        self.loop.run(source)
        source.close()

    def show(self, picture: Picture | None, audio: NDArray[np.float32] | None = None) -> tuple[str, ...]:
        """One frame; the flags of its tick."""
        self.clock.advance(1 / FPS)
        sound = np.zeros(800, np.float32) if audio is None else audio
        self.loop.tick(Packet(self.loop.trace.played, self.clock.now_s(), picture, sound))
        return self.loop.trace.ticks[-1].flags

    @property
    def status(self) -> Status:
        return self.link.status()

    @property
    def present(self) -> list[tuple[bool, bool]]:
        """What the student was told of face and sound, step by step."""
        return [(bool(i["present"][0]), bool(i["present"][1])) for i in self.engine.inputs]


# ---- recordings --------------------------------------------------------------------------------------------


def test_a_truncated_video_is_played_to_its_last_good_picture_and_the_run_ends_well(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rng = np.random.default_rng(0)
    media.write_video(tmp_path / "whole.mp4", (rng.integers(0, 255, (64, 64, 3), np.uint8) for _ in range(45)))
    whole = (tmp_path / "whole.mp4").read_bytes()
    (tmp_path / "cut.mp4").write_bytes(whole[: 2 * len(whole) // 3])
    engine = tiny_engine.write(tmp_path / "engine")
    flags = ["--robot", "null", "--engine", str(engine), "--source", str(tmp_path / "cut.mp4")]
    assert run.main([*flags, "--black-box", str(tmp_path / "box")]) == 0
    told = capsys.readouterr().out
    assert "of 1.5 s; the file is damaged and was played to its last good one" in told
    assert " refused; face in " in told
    assert not (tmp_path / "box").exists(), "a damaged recording is no fault of the robot"


@pytest.mark.parametrize("rate", [22.13, 23.976, 25, 29.97, 50, 60, "variable"])
def test_any_rate_becomes_thirty_plans_a_second(tmp_path: Path, rate: float | str) -> None:
    if rate == "variable":
        drawn = np.random.default_rng(1).choice(np.arange(1, 172), 70, replace=False)
        times_s = [0.0, *sorted((drawn / 90).tolist()), 1.95]
    else:
        times_s = even(2.0, float(rate))
    rig = Rig(robot="null")
    rig.follow(FileSource(film(tmp_path / "a.mkv", times_s, sound=noise(2.0)), SPEC))
    trace = rig.loop.trace
    assert trace.played == pytest.approx(2 * FPS, abs=2)
    assert (trace.missed_ticks, trace.refused_frames) == (0, 0)
    assert [t.frame for t in trace.ticks] == list(range(trace.played))
    captured_s = np.array([t.captured_at_s for t in trace.ticks])
    np.testing.assert_allclose(np.diff(captured_s), 1 / FPS, atol=1e-9)
    assert rig.status.counts.taken == trace.played


@pytest.mark.parametrize(("seconds", "at_s"), [(2.3, 0.0), (1.7, 0.0), (0.5, 1.43)], ids=["long", "short", "late"])
def test_sound_that_does_not_fit_the_pictures_moves_no_plan_in_time(
    tmp_path: Path, seconds: float, at_s: float
) -> None:
    rig = Rig(robot="null")
    rig.follow(FileSource(film(tmp_path / "a.mkv", even(2.0), sound=noise(seconds), sound_at_s=at_s), SPEC))
    assert rig.loop.trace.played == 60
    heard = [t for t, (_, sound) in enumerate(rig.present) if sound]
    assert heard[0] == int(at_s * FPS), "nothing is heard before its time"
    ended = round((at_s + seconds) * SAMPLE_RATE_HZ)
    assert heard[-1] == max(t for t in range(60) if audio_end(t) - SPEC.audio_window_samples < ended)
    assert heard == list(range(heard[0], heard[-1] + 1))


def test_an_empty_or_silent_sound_is_told_to_the_student_as_no_sound(tmp_path: Path) -> None:
    path = film(tmp_path / "a.mkv", even(0.5))
    (tmp_path / "empty.wav").touch()
    media.write_wav(tmp_path / "silent.wav", np.zeros(8000, np.float32))
    for name, flag in (("empty.wav", True), ("silent.wav", False)):
        rig = Rig(robot="null")
        rig.follow(FileSource(path, SPEC, audio=tmp_path / name))
        assert rig.loop.trace.played == 15
        assert not any(sound for _, sound in rig.present)
        assert all(("no_sound" in t.flags) is flag for t in rig.loop.trace.ticks), "recorded silence is no fault"
        assert rig.status.counts.taken == 15, "the face goes on by sight"


@pytest.mark.parametrize(("side_px", "found"), [(250, True), (200, True), (150, False)])
def test_a_small_face_in_a_portrait_picture_is_found_from_200_px_on(side_px: int, found: bool) -> None:
    wall, face = np.empty((1920, 1080, 3), np.uint8), np.empty((side_px, side_px, 3), np.uint8)
    cv2.resize(scene([]), (1080, 1920), dst=wall)
    rig = Rig(robot="null")
    for t in range(15):
        cv2.resize(actor(7).listening[t], (side_px, side_px), dst=face, interpolation=cv2.INTER_AREA)
        picture = wall.copy()
        picture[600 : 600 + side_px, 200 : 200 + side_px] = face
        rig.show(picture)
    assert ("no_face" not in rig.loop.trace.ticks[-1].flags) is found
    assert rig.present[-1][0] is found


# ---- whom there is to see ----------------------------------------------------------------------------------


def clip_without_face(gone: range, *, sound: bool) -> tuple[Rig, list[float]]:
    """The packaged student and clip with nobody in view in `gone`, and how much each plan asked for at most."""
    rig, asked = Rig(engines.load(run.ASSETS / "engine")), []
    pictures = [p for _, p in itertools.islice(media.iter_grid_frames(run.ASSETS / "clip.mp4"), 90)]
    heard, rng = media.read_audio(run.ASSETS / "clip.mp4"), np.random.default_rng(0)
    empty = (np.full_like(pictures[0], 110) + rng.integers(0, 9, pictures[0].shape)).astype(np.uint8)
    for t in range(gone.stop + 30):
        audio = audio_window(heard, t, SPEC) if sound or t not in gone else None
        rig.show(np.roll(empty, t, axis=0) if t in gone else pictures[t % 90], audio)
        plan = rig.loop.trace.ticks[-1].plan
        assert plan is not None
        asked.append(float(rig.link.robot.calibration.intensity(plan.au).max()))
    return rig, asked


@pytest.mark.parametrize(("gone", "sound"), [(range(60, 120), True), (range(30, 240), False)], ids=["heard", "silent"])
def test_two_seconds_without_a_face_are_flagged_and_the_face_goes_on_by_ear(gone: range, sound: bool) -> None:
    rig, asked = clip_without_face(gone, sound=sound)
    flagged = [t.frame for t in rig.loop.trace.ticks if "no_face" in t.flags]
    assert flagged == list(range(flagged[0], flagged[-1] + 1))
    assert gone.start <= flagged[0] <= gone.start + HOLD_FRAMES
    assert gone.stop - 1 <= flagged[-1] <= gone.stop + 6, "found again within 200 ms"
    assert rig.loop.trace.played == gone.stop + 30
    assert max(asked[gone.start + HOLD_FRAMES : gone.stop]) < 0.6, "nobody to see, and so no strong expression"
    if sound:
        assert rig.status.counts.taken == rig.loop.trace.played, "a plan for every frame"
        assert np.ptp(asked[gone.start + HOLD_FRAMES : gone.stop]) > 0.02, "by ear, and not frozen"
    else:
        assert np.ptp(asked[gone.stop - 30 : gone.stop]) < 0.05, "with nobody to see or hear the face comes to rest"


def test_with_nobody_to_see_or_hear_for_long_the_face_drifts_to_neutral_until_somebody_is_there() -> None:
    rig, wall = Rig(), scene([])
    for t in range(30):
        rig.show(scene([(actor(7).listening[t], LEFT)]), LOUD)
    assert rig.status.state == "following"
    for t in range(180):
        rig.show(np.roll(wall, t, axis=0))
    assert rig.status.state == "neutral"
    rig.show(wall, LOUD)
    rig.show(wall, LOUD)
    assert rig.status.state == "following", "a voice is enough"


def test_a_clip_that_is_mostly_without_a_face_holds_flags_and_finds_again() -> None:
    """57 % of the frames, in three stretches."""
    rig, shown = Rig(robot="null"), []
    for t in range(210):
        here = t % 70 < 30
        shown.append(here)
        rig.show(scene([(actor(7).listening[t % 60], LEFT)]) if here else scene([]))
    flagged = ["no_face" in t.flags for t in rig.loop.trace.ticks]
    assert np.mean(shown) == pytest.approx(0.43, abs=0.01)
    for start in (30, 100, 170):
        assert not any(flagged[start - 20 : start]), "seen"
        assert all(flagged[start + HOLD_FRAMES : start + 40]), "held a second at most"
    assert rig.loop.trace.faces == 210 - sum(flagged)
    assert rig.status.counts.taken == 210


def test_two_faces_that_cross_stay_the_same_two_through_the_loop() -> None:
    one, other, rig, centres = actor(7), actor(4), Rig(robot="null"), []
    for t in range(100):
        x = int(np.clip((t - 25) * 6, 0, 360))
        flags = rig.show(
            scene([(other.listening[t % 80], (380 - x, 70, 220)), (one.listening[t % 80], (20 + x, 70, 220))])
        )
        if t < SEARCH_FRAMES:
            continue
        assert "no_face" not in flags
        box = rig.loop.trace.ticks[-1].box
        assert box is not None
        centres.append((box[0] + box[2]) / 2)
    first = 130 if centres[20 - SEARCH_FRAMES] < 320 else 490
    assert abs(centres[20 - SEARCH_FRAMES] - first) < 40
    assert abs(centres[-1] - (620 - first)) < 40, "the same face, now on the other side"


def test_after_a_hard_cut_the_loop_sees_the_new_face_within_200_ms() -> None:
    one, other, rig = actor(7), actor(4), Rig(robot="null")
    for t in range(32):
        rig.show(scene([(one.listening[t], (20, 20, 300))]))
    flags = [rig.show(255 - scene([(255 - other.listening[t], (440, 140, 160))])) for t in range(12)]
    assert "cut" in flags[0]
    boxes = [t.box for t in list(rig.loop.trace.ticks)[32:]]
    found = next(t for t, box in enumerate(boxes) if box is not None and box[0] > 320)
    assert found <= 6
    assert all(box is None or box[0] > 320 for box in boxes), "nothing is cut from where the old face was"


@pytest.mark.parametrize(("level", "flag"), [(0, "dark"), (255, "glare")])
def test_black_and_over_exposed_pictures_are_flagged_and_nothing_is_shown_to_the_student_as_a_face(
    level: int, flag: str
) -> None:
    rig, face = Rig(robot="null"), scene([(actor(7).listening[0], LEFT)])
    for t in range(12):
        rig.show(scene([(actor(7).listening[t], LEFT)]), LOUD)
    for _ in range(10):
        assert {flag, "no_face"} <= set(rig.show(np.full_like(face, level), LOUD))
    assert rig.present[-10:] == [(False, True)] * 10, "by ear alone"
    rig.show(scene([(actor(7).listening[12], LEFT)]), LOUD)
    assert rig.present[-1] == (True, True)


def test_a_frozen_camera_is_flagged_after_a_second_and_the_face_goes_on_by_ear() -> None:
    rig, still = Rig(robot="null"), scene([(actor(7).listening[0], LEFT), (actor(4).listening[0], RIGHT)])
    flags = [rig.show(still.copy(), LOUD) for _ in range(45)]
    first = next(t for t, f in enumerate(flags) if "frozen" in f)
    assert first == FPS
    assert all({"frozen", "no_face"} <= set(f) for f in flags[first:])
    assert rig.present[-1] == (False, True)
    assert rig.status.counts.taken == 45
