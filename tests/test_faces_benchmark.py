"""What the benchmark of the face stage computes: steadiness, lag, verdicts, and scores without leakage."""

import copy
import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from benchmarks.faces import WAYS, verdicts
from benchmarks.faces_boxes import MOST_LAG, errors_by_lag, first_box, jitter, path_of
from benchmarks.faces_figures import told
from benchmarks.faces_pairs import clips_of, to_and_fro
from benchmarks.faces_weights import GRID, Tape, again, halves, held_out, right_share
from deploy.faces.speaker import Clues, Weights
from student.face import Box


def boxes(x: NDArray[np.float64], width: float = 100.0) -> list[Box | None]:
    return [(float(v), 50.0, float(v) + width, 50.0 + width) for v in x]


def test_a_box_that_moves_evenly_does_not_jitter_and_noise_does_as_much_as_it_has() -> None:
    even = path_of(boxes(np.arange(60) * 2.0))
    assert jitter(even) == pytest.approx(0, abs=1e-12)
    noise = np.random.default_rng(0).normal(0, 1, 4000)
    # of six numbers per difference only x moves; a second difference has six times the variance
    assert jitter(path_of(boxes(noise))) == pytest.approx(0.01 * np.sqrt(6 / 3), rel=0.05)
    assert jitter(path_of(boxes(noise, 200.0))) == pytest.approx(0.005 * np.sqrt(6 / 3), rel=0.05)


@pytest.mark.parametrize("lag", [0, 3, MOST_LAG])
def test_the_lag_of_a_late_box_is_found(lag: int) -> None:
    x = np.cumsum(np.random.default_rng(1).normal(0, 3, 300))
    late = np.concatenate([np.full(lag, x[0]), x[: len(x) - lag]])
    errors = errors_by_lag(path_of(boxes(late)), path_of(boxes(x)))
    assert len(errors) == MOST_LAG + 1
    assert int(np.argmin(errors)) == lag


def test_frames_without_a_face_are_left_out_and_the_first_face_is_found() -> None:
    some = boxes(np.arange(40.0))
    some[3], gaps = None, [None, None, *boxes(np.arange(5.0))]
    assert np.isfinite(jitter(path_of(some)))
    assert first_box(gaps) == 2
    assert first_box([None, None]) is None


def test_what_was_chosen_on_has_no_part_in_the_score() -> None:
    names = [f"clip {k}" for k in range(6)]
    pairs = list(itertools.permutations(names, 2))
    luck = np.random.default_rng(0).random((len(GRID), len(pairs)))
    found = held_out(luck, pairs, names)
    for row in found.values():
        assert row["own_half"] > 0.65, "the luckiest of many candidates"
        assert row["other_half"] == pytest.approx(0.5, abs=0.1), "luck does not carry over"
        assert row["without_the_two"] == pytest.approx(0.5, abs=0.13)
    good = luck.copy()
    good[GRID.index(Weights())] = 1.5
    assert all(row["other_half"] == row["without_the_two"] == 1.5 for row in held_out(good, pairs, names).values())


@pytest.mark.parametrize("clips", [4, 5, 9])
def test_halves_are_apart_and_together_all_clips(clips: int) -> None:
    names = [str(k) for k in range(clips)]
    seen = list(halves(names))
    assert all(not a & b and a | b == set(names) and abs(len(a) - len(b)) <= 1 for a, b in seen)
    assert len({tuple(sorted(a)) for a, _ in seen}) == len(seen)


def test_a_tape_weighed_again_turns_to_whose_mouth_moves_with_the_voice() -> None:
    loud = np.arange(150) % 8 < 4
    clues = [Clues(1.0 if on else 0.6, -20.0 if on else -40.0, {1: (0.0, 0.0), 2: (0.3 * on, 0.0)}) for on in loud]
    tape = Tape(clues, [1] * 150, [{1: 1, 2: 0}] * 150, [{1: 1, 0: 2}] * 150)
    watched = again(tape, Weights())
    assert watched[0] == 1
    assert watched[-1] == 2
    assert right_share(tape, watched) == pytest.approx(1.0, abs=0.1)
    assert right_share(tape, [1] * 150) == 0


def test_a_clip_is_shown_to_and_fro_without_a_jump() -> None:
    pictures: list[Any] = [np.full((1, 1, 3), v, np.uint8) for v in range(4)]
    shown = [int(p[0, 0, 0]) for p in itertools.islice(to_and_fro(pictures), 13)]
    assert shown == [0, 1, 2, 3, 2, 1, 0, 1, 2, 3, 2, 1, 0]


def test_a_folder_without_clips_is_refused_with_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="wanted four videos"):
        clips_of(tmp_path)


def way(mean: float, worst: float, jitter: float) -> dict[str, Any]:
    cost = {"mean_ms": mean, "p50_ms": 0.3, "p95_ms": 6.0, "p99_ms": 8.0, "worst_ms": 20.0}
    return {
        "processor": cost,
        "face_share": 1.0,
        "jitter": jitter,
        "worst_until_first_box_ms": worst,
        "first_box_frames": [1, 4],
    }


GOOD = {
    "ways": {WAYS[0]: way(1.8, 8.0, 0.005), WAYS[1]: way(1.4, 24.0, 0.005), WAYS[2]: way(14.0, 24.0, 0.02)},
    "boxes_as_in_training": 1.0,
    "ratio": 7.8,
    "frames": 1200,
}
NOBODY = {name: {"mean_ms": 4.0 + k} for k, name in enumerate(WAYS)}
BROKEN = [
    (("ways", WAYS[0], "processor", "mean_ms"), 2.1, "2 ms a frame"),
    (("ways", WAYS[0], "face_share"), 0.95, "after five frames"),
    (("ways", WAYS[0], "jitter"), 0.03, "steadier"),
    (("ways", WAYS[0], "worst_until_first_box_ms"), 17.0, "a search is spread"),
    (("boxes_as_in_training",), 0.99, "the boxes of training"),
]


@pytest.mark.parametrize(("keys", "value", "promise"), BROKEN)
def test_each_broken_promise_of_the_face_stage_is_a_verdict_of_its_own(
    keys: tuple[str, ...], value: float, promise: str
) -> None:
    assert all(verdicts(GOOD, NOBODY).values())
    found: Any = copy.deepcopy(GOOD)
    place = found
    for key in keys[:-1]:
        place = place[key]
    place[keys[-1]] = value
    broken = [name for name, kept in verdicts(found, NOBODY).items() if not kept]
    assert len(broken) == 1
    assert promise in broken[0]


def test_the_readme_tells_the_figures_of_the_file_and_no_others() -> None:
    run = {"machine": {"processor": "A CPU", "cores": 2}, "time_utc": "2026-11-21T10:00:00+00:00"}
    text = told({"run": run, "all": GOOD, "clips": {"a": 1, "b": 2}, "pairs": None})
    assert "1200 frames of 2 real clips" in text
    assert "| the loop's | 1.8 | 0.3 | 6.0 | 8.0 | 8.0 | 0.50 |" in text
    assert "7.8 × cheaper" in text
    assert "within 4 frames" in text
