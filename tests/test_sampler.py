"""The sampler finds rare units more often, keeps inside its sessions and depends on its draw alone."""

import numpy as np
import pytest

from distill.batches import TrainingSession
from distill.sampler import StratifiedSampler
from student.front_cache import FrontSession

CLIP = 40


def session(name: str, frames: int, active: dict[int, slice] | None = None) -> TrainingSession:
    """A session whose unit a is active in the frames `active[a]`."""
    act = np.zeros((frames, 3), np.float32)
    for unit, span in (active or {}).items():
        act[span, unit] = 1
    front = FrontSession(
        np.zeros((frames, 2, 2, 3), np.uint8), np.zeros(10, np.float32), np.ones((frames, 2), np.float32)
    )
    return TrainingSession(name, front, act, act, None, None)


def rare_and_common() -> list[TrainingSession]:
    """Unit 0 is often active everywhere; unit 1 in two frames of one session in five."""
    often = {0: slice(0, 300, 2)}
    return [session(f"s{i}", 300, often) for i in range(4)] + [session("rare", 300, {**often, 1: slice(100, 102)})]


def share_with_rare_unit(strength: float) -> float:
    sessions = rare_and_common()
    picks = StratifiedSampler(sessions, CLIP, strength).draw(4000, np.random.default_rng(0))
    return float(np.mean([sessions[i].act[start : start + CLIP, 1].any() for i, start in picks]))


def test_windows_with_a_rare_unit_come_up_more_often() -> None:
    plain, stratified = share_with_rare_unit(0.0), share_with_rare_unit(1.0)
    assert plain < 0.05
    assert stratified > 1.5 * plain


def test_more_strength_draws_more_of_the_rare_unit() -> None:
    assert share_with_rare_unit(3.0) > share_with_rare_unit(1.0)


def test_every_window_lies_inside_its_session() -> None:
    sessions = [session("a", 41), session("b", 40), session("c", 333)]
    for i, start in StratifiedSampler(sessions, CLIP).draw(2000, np.random.default_rng(1)):
        assert 0 <= start <= sessions[i].n_frames - CLIP


def test_every_start_of_a_session_can_be_drawn() -> None:
    sessions = [session("a", 90)]
    starts = {start for _, start in StratifiedSampler(sessions, CLIP).draw(5000, np.random.default_rng(2))}
    assert starts == set(range(51))


def test_the_same_draw_gives_the_same_windows() -> None:
    sampler = StratifiedSampler(rare_and_common(), CLIP)
    assert sampler.draw(20, np.random.default_rng(3)) == sampler.draw(20, np.random.default_rng(3))
    assert sampler.draw(20, np.random.default_rng(3)) != sampler.draw(20, np.random.default_rng(4))


def test_a_unit_that_is_never_active_or_never_annotated_attracts_nothing() -> None:
    sessions = rare_and_common()
    for s in sessions:
        s.act[:, 2] = np.nan
    share = [s for s in StratifiedSampler(sessions, CLIP).draw(100, np.random.default_rng(5)) if s]
    assert len(share) == 100


def test_sessions_shorter_than_a_clip_are_passed_over_while_others_are_long_enough() -> None:
    sessions = [session("short", 20), session("long", 100)]
    assert {i for i, _ in StratifiedSampler(sessions, CLIP).draw(200, np.random.default_rng(6))} == {1}


def test_only_short_sessions_are_refused_with_the_remedy() -> None:
    with pytest.raises(ValueError, match=r"clip of 40 frames \(longest: 20\); lower clip_frames"):
        StratifiedSampler([session("short", 20)], CLIP)
