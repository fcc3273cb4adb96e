"""The scripted speaker, the listener who answers, and the best that a causal predictor could do."""

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from dyad.action_units import SEED17
from dyad.clock import FPS
from dyad.layouts import processed
from dyad.session import Session
from dyad.synthetic import bound, listener
from dyad.synthetic.__main__ import main
from dyad.synthetic.script import KINDS, Event, Script, write_script
from dyad.synthetic.voice import draw_voice

N_FRAMES = 40 * FPS


@pytest.fixture(scope="module")
def scripts() -> list[Script]:
    made = []
    for seed in range(10):
        rng = np.random.default_rng([9, seed])
        made.append(write_script(N_FRAMES, draw_voice(rng, "formant"), rng))
    return made


def answer(events: list[Event], seed: int) -> NDArray[np.float32]:
    """The probabilities of the listener `seed`, in the order of draws that the generator uses."""
    rng = np.random.default_rng(seed)
    persona = listener.Persona.draw(rng)
    wobble = listener.noise(N_FRAMES, rng)
    moves = listener.react(events, N_FRAMES, persona, rng)
    return listener.probability(listener.activation(moves, N_FRAMES), persona, wobble)


def event(kind: str, onset: int) -> Event:
    return Event(kind=kind, onset=onset, known_at=onset + 6, hold_frames=30, amplitude=1.0)


def starts_of(kind: str, draws: int) -> NDArray[np.float64]:
    """Lags in seconds of the first movement caused by an event of `kind`, over many listeners."""
    lags = []
    for seed in range(draws):
        rng = np.random.default_rng([4, seed])
        moves = listener.react([event(kind, 300)], N_FRAMES, listener.Persona.draw(rng), rng)
        lags += [(m.start - 300) / FPS for m in moves if m.cause == 0][:1]
    return np.array(lags)


def test_every_kind_of_event_happens_and_has_an_answer(scripts: list[Script]) -> None:
    assert {e.kind for s in scripts for e in s.events} == set(KINDS) == set(listener.REACTIONS)


def test_every_one_of_the_units_is_shown_by_speakers(scripts: list[Script]) -> None:
    strongest = np.max([s.speaker_au.max(axis=0) for s in scripts], axis=0)
    assert [u for u, peak in zip(SEED17.units, strongest, strict=True) if peak < 0.4] == []
    assert (np.concatenate([s.speaker_au for s in scripts]) <= 1).all()


def test_events_come_in_order_and_are_known_after_they_begin(scripts: list[Script]) -> None:
    for script in scripts:
        onsets = [e.onset for e in script.events]
        assert onsets == sorted(onsets)
        assert all(e.onset < e.known_at and 0 <= e.onset < N_FRAMES for e in script.events)


def test_several_cues_fall_into_every_ten_seconds(scripts: list[Script]) -> None:
    assert np.mean([len(s.events) for s in scripts]) / (N_FRAMES / FPS / 10) > 4


def test_lips_part_while_the_voice_is_heard(scripts: list[Script]) -> None:
    script = scripts[0]
    blocks = script.sound[: N_FRAMES * 533].reshape(N_FRAMES, 533)
    voiced = np.sqrt((blocks**2).mean(axis=1)) > 0.05
    lips = script.speaker_au[:, SEED17.index("AU25")]
    assert lips[voiced].mean() > lips[~voiced].mean() + 0.3


@pytest.mark.parametrize("cut", [1, 200, 555, 1100])
def test_what_the_speaker_does_later_never_changes_the_listener_before(scripts: list[Script], cut: int) -> None:
    for seed, script in enumerate(scripts[:4]):
        past = [e for e in script.events if e.onset < cut]
        future = [event("laugh", cut), event("scary", cut + 3)]
        whole = answer(script.events, seed)
        np.testing.assert_array_equal(answer(past, seed)[:cut], whole[:cut])
        np.testing.assert_array_equal(answer(past + future, seed)[:cut], whole[:cut])


def test_no_answer_comes_sooner_than_a_tenth_of_a_second() -> None:
    for kind in KINDS:
        assert starts_of(kind, 60).min(initial=1.0) >= 0.1


def test_smiles_are_mirrored_after_about_six_tenths_of_a_second_a_quarter_at_once() -> None:
    lags = starts_of("smile", 400)
    assert 0.4 < np.median(lags) < 0.65
    assert 0.1 < np.mean(lags < 0.26) < 0.4


def test_backchannels_keep_their_refractory_distance() -> None:
    events = [event(kind, onset) for onset in range(30, 900, 12) for kind in ("pause_low", "pitch_rise")]
    for seed in range(10):
        rng = np.random.default_rng(seed)
        moves = listener.react(events, N_FRAMES, listener.Persona.draw(rng), rng)
        starts = np.unique([m.start for m in moves if m.cause >= 0])
        assert (np.diff(starts) >= listener.REFRACTORY_S * FPS - 1e-6).all()


def test_nose_wrinkles_are_rare_and_puckers_weak(scripts: list[Script]) -> None:
    acts = np.concatenate([listener.hysteresis(answer(s.events, i)) for i, s in enumerate(scripts)])
    share = dict(zip(SEED17.units, acts.mean(axis=0), strict=True))
    assert share["AU9"] < 0.4 * share["AU12"]
    plain = listener.Persona(1, 1, 1, 1, np.zeros(17, np.float32))
    full = listener.probability(np.ones((1, 17), np.float32), plain, np.zeros((1, 17), np.float32))[0]
    assert full.argmin() == SEED17.index("AU18")


def test_a_unit_stays_active_until_it_falls_below_the_lower_threshold() -> None:
    prob = np.array([[0.3], [0.5], [0.45], [0.41], [0.45], [0.5]], np.float32)
    np.testing.assert_array_equal(listener.hysteresis(prob)[:, 0], [0, 1, 1, 0, 0, 1])


def test_an_event_moves_the_bound_only_once_it_is_known() -> None:
    smile = event("smile", 60)
    for horizon in (0, 8):
        with_smile = bound.expected([smile], 200, horizon, listeners=40, seed=0)
        without = bound.expected([], 200, horizon, listeners=40, seed=0)
        first = smile.known_at + horizon  # the first frame that a prediction made at `known_at` is about
        np.testing.assert_array_equal(with_smile[:first], without[:first])
        assert with_smile[first + 30, SEED17.index("AU12")] > without[first + 30, SEED17.index("AU12")] + 0.2


@pytest.fixture(scope="module")
def labelled(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[Session]]:
    root = tmp_path_factory.mktemp("bound") / "dyads"
    main(
        [
            "--out",
            str(root),
            "--sessions",
            "12",
            "--seconds",
            "40",
            "--no-media",
            "--voice",
            "formant",
            "--workers",
            "1",
        ]
    )
    return root, [s for split in processed.SPLITS for s in processed.load(root, split)]


def skill(guesses: list[NDArray[np.float32]], sessions: list[Session]) -> float:
    mean = np.mean([s.prob.mean(axis=0) for s in sessions], axis=0)
    left = sum(float(np.square(g - s.prob).sum()) for g, s in zip(guesses, sessions, strict=True))
    return 1 - left / sum(float(np.square(mean - s.prob).sum()) for s in sessions)


def test_the_bound_beats_its_own_shifted_and_rescaled_versions(labelled: tuple[Path, list[Session]]) -> None:
    root, sessions = labelled
    best = [bound.attainable(root / "truth" / f"{s.id}.npz", 0, listeners=40) for s in sessions]
    reached = skill(best, sessions)
    assert 0.15 < reached < 0.6
    for shift in (-12, 12):
        assert skill([np.roll(b, shift, axis=0) for b in best], sessions) < reached
    for scale in (0.5, 1.6):
        centre = [b.mean(axis=0) for b in best]
        scaled = [c + scale * (b - c) for b, c in zip(best, centre, strict=True)]
        assert skill(scaled, sessions) < reached


def test_looking_further_ahead_explains_less(labelled: tuple[Path, list[Session]]) -> None:
    root, sessions = labelled
    mean = np.mean([s.prob.mean(axis=0) for s in sessions], axis=0)
    reached = [bound.attainable_skill(root, sessions[:6], mean, h, listeners=25) for h in (0, 15, 45)]
    assert reached[0] > reached[1] > reached[2]


def test_the_last_row_of_the_bound_repeats_past_the_end(labelled: tuple[Path, list[Session]]) -> None:
    root, sessions = labelled
    rows = bound.attainable(root / "truth" / f"{sessions[0].id}.npz", 8, listeners=3)
    assert rows.shape == (sessions[0].n_frames, 17)
    np.testing.assert_array_equal(rows[-9:], np.repeat(rows[-1:], 9, axis=0))
