"""Plans are taken or refused whole, read between their rows, and left when they have run out."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from toy_robot import CALIBRATION, face, plan_of

from deploy.motion import foresight
from deploy.motion.config import MotionConfig
from deploy.motion.course import Pace, Supply, next_state
from deploy.motion.degrade import KEY_INTENSITY, RATE_HZ, Degrade
from deploy.motion.jitter_buffer import BELIEVED_S, PlanBuffer
from deploy.motion.states import Verdict

NEWEST = MotionConfig(blend_s=0.0)
SOUND = plan_of(face(AU12=0.5), 5, 10.0)
NAN, BIG = face(AU12=float("nan")), face(AU1=1.01)
TIMES = SOUND.target_times_s


def buffer_of(*levels: tuple[float, float], config: MotionConfig = NEWEST) -> PlanBuffer:
    """Plans (captured at, level of the only channel), each constant."""
    kept = PlanBuffer(config)
    for seq, (captured_at_s, level) in enumerate(levels):
        kept.add(plan_of(face(), seq, captured_at_s), np.full((9, 1), level), captured_at_s)
    return kept


@pytest.mark.parametrize(
    "spoilt",
    [
        plan_of(NAN, 6, 10.0),
        plan_of(face(AU12=float("inf")), 6, 10.0),
        plan_of(BIG, 6, 10.0),
        plan_of(face(AU1=-0.01), 6, 10.0),
        plan_of(face(), 6, 10.0, confidence=np.full((9, 17), np.nan, np.float32)),
        plan_of(face(), 6, 10.0, confidence=np.ones((9, 16), np.float32)),
        plan_of(face(), 6, 10.0, au=np.zeros((9, 16), np.float32)),
        plan_of(face(), 6, 10.0, au=np.zeros((8, 17), np.float32)),
        plan_of(face(), 6, 10.0, au=np.zeros((0, 17), np.float32), target_times_s=np.zeros(0)),
        plan_of(face(), 6, 10.0, target_times_s=TIMES[::-1].copy()),
        plan_of(face(), 6, 10.0, target_times_s=np.full(9, 10.0)),
        plan_of(face(), 6, 10.0, target_times_s=np.where(TIMES > 10.2, np.nan, TIMES)),
        plan_of(face(), 6, 10.0, target_times_s=TIMES + 1.0),
        plan_of(face(), 6, 10.0, target_times_s=TIMES - 6.0),
        plan_of(face(), 6, 10.0, target_times_s=TIMES[:, None]),
        plan_of(face(), 6, 10.0, target_times_s=TIMES.tolist()),
        plan_of(face(), 6, float("nan")),
        plan_of(face(), 6, 11.0, target_times_s=TIMES),
        plan_of(face(), 6, 1.0, target_times_s=TIMES),
    ],
    ids=range(19),
)
def test_a_plan_that_could_move_a_robot_wrongly_is_refused_whole(spoilt: Any) -> None:
    assert PlanBuffer(NEWEST).judge(spoilt, 10.0) == "refused"


@pytest.mark.parametrize(
    ("seq", "now_s", "verdict"),
    [(6, 10.0, "taken"), (5, 10.0, "old"), (4, 10.0, "old"), (6, 10.3, "taken"), (6, 10.33, "late")],
)
def test_a_plan_comes_with_a_rising_number_and_in_time(seq: int, now_s: float, verdict: Verdict) -> None:
    kept = PlanBuffer(NEWEST)
    kept.add(SOUND, np.zeros((9, 1)), 10.0)
    assert kept.judge(plan_of(face(), seq, 10.0), now_s) == verdict
    kept.forget_numbers()
    assert kept.judge(plan_of(face(), 0, 10.0), 10.0) == "taken", "a new sender counts anew"


@given(st.floats(-0.1, 8 / 30), st.integers(0, 2**31))
def test_a_plan_is_read_between_its_rows_as_numpy_interpolates(ahead_s: float, seed: int) -> None:
    kept, shares = PlanBuffer(NEWEST), np.random.default_rng(seed).random((9, 3))
    kept.add(SOUND, shares, 10.0)
    at_s = 10.0 + ahead_s * np.array([[1.0, 0.5, 0.25]])
    expected = [np.interp(at_s[0, c], TIMES, shares[:, c]) for c in range(3)]
    np.testing.assert_allclose(kept.read(at_s)[0], expected, atol=1e-12)


def test_beyond_its_last_row_a_straight_plan_goes_on_straight_and_ever_slower() -> None:
    kept = PlanBuffer(NEWEST)
    kept.add(SOUND, np.linspace(0, 8 / 30, 9)[:, None], 10.0)
    said = np.array([kept.read(np.array([[TIMES[-1] + h / 30]]))[0, 0] for h in range(9)]) - 8 / 30
    np.testing.assert_allclose(said[1], 1 / 30, rtol=0.05)
    assert (np.diff(said, 2) < 0).all()
    assert (np.diff(said) > 0).all()
    assert kept.read(np.array([[TIMES[-1] + 5.0]]))[0, 0] == pytest.approx(8 / 30 + said[-1]), "then it stays"


@given(st.integers(1, 12), st.integers(0, 2**31))
def test_a_guess_is_the_mean_of_what_smooth_movements_do_given_the_rows(rows: int, seed: int) -> None:
    """Beside a draw of the process itself: no other linear guess from the same rows is nearer on average."""
    rng = np.random.default_rng(seed)
    past_s = np.cumsum(rng.uniform(0.02, 0.05, rows))
    at_s = np.concatenate([past_s, past_s[-1] + foresight.BEYOND_S])
    apart = np.sqrt(5) * np.abs(at_s[:, None] - at_s) / foresight.SMOOTH_S
    joint = foresight.LEVEL + (1 + apart + apart**2 / 3) * np.exp(-apart)
    joint[:rows, :rows] += foresight.JITTER**2 * np.eye(rows)
    weights = foresight.beyond(past_s, np.eye(rows))
    best = np.array([np.linalg.lstsq(joint[:rows, :rows], joint[:rows, rows + e], rcond=None)[0] for e in range(8)])
    np.testing.assert_allclose(weights, best, atol=0.02 * np.abs(best).max())
    np.testing.assert_allclose(weights.sum(axis=1), 1.0, atol=1e-9)


def test_jittering_rows_are_guessed_on_more_calmly_than_their_last_slope_says() -> None:
    rows = 0.01 * np.random.default_rng(0).standard_normal((9, 500))
    guessed = foresight.beyond(TIMES, rows)[2]
    slope = rows[-1] + 3 * (1.5 * (rows[-1] - rows[-2]) - 0.5 * (rows[-2] - rows[-3]))
    assert guessed.std() < 0.75 * slope.std()


def test_a_curved_movement_is_guessed_nearer_than_by_its_last_slope() -> None:
    curve = np.sin(np.outer(TIMES - 10.0, [3.0, 5.0, 7.0]) + np.array([0.0, 1.0, 2.0]))
    meant = np.sin(np.outer(TIMES[-1] - 10.0 + foresight.BEYOND_S[:3], [3.0, 5.0, 7.0]) + np.array([0.0, 1.0, 2.0]))
    straight = curve[-1] + np.outer(np.arange(1, 4), curve[-1] - curve[-2])
    guessed = foresight.beyond(TIMES, curve)[:3]
    assert np.abs(guessed - meant).mean() < 0.5 * np.abs(straight - meant).mean()


def test_the_newest_plan_alone_speaks_without_blending() -> None:
    kept = buffer_of((10.0, 0.2), (10.033, 0.8))
    assert kept.read(np.array([[10.1], [10.2]])).tolist() == [[0.8], [0.8]]


def test_blended_plans_weigh_by_age_and_guesses_ever_less() -> None:
    kept = buffer_of((10.0, 0.2), (10.05, 0.8), config=MotionConfig(blend_s=0.05))
    end_s = 10.0 + 8 / 30
    told, edge, guessed, both_guess = kept.read(np.array([[10.2], [end_s], [end_s + 0.04], [end_s + 0.2]]))[:, 0]
    assert told == pytest.approx((0.8 + 0.2 * np.exp(-1)) / (1 + np.exp(-1)))
    assert edge == pytest.approx(told), "nothing jumps where a plan ends"
    little = np.exp(-1 - 0.04 / BELIEVED_S)
    assert guessed == pytest.approx((0.8 + 0.2 * little) / (1 + little))
    least = np.exp(-1 - 0.05 / BELIEVED_S)
    assert both_guess == pytest.approx((0.8 + 0.2 * least) / (1 + least)), "the newest guesses, too"


def test_blending_makes_a_noisy_face_calmer_than_the_newest_plan_alone() -> None:
    rough = []
    for blend_s in (0.0, 0.05):
        kept, rng, said = PlanBuffer(MotionConfig(blend_s=blend_s)), np.random.default_rng(0), []
        for seq in range(200):
            kept.add(plan_of(face(), seq, seq / 30), 0.5 + 0.05 * rng.standard_normal((9, 4)), seq / 30)
            said.append(kept.read(np.full((1, 4), seq / 30 + 0.1))[0])
        rough.append(np.diff(np.array(said), axis=0).std())
    assert rough[1] < 0.7 * rough[0]


def test_plans_are_kept_for_the_buffers_length_and_one_row_is_a_plan() -> None:
    kept = buffer_of(*((0.033 * i, 0.5) for i in range(90)), config=MotionConfig(blend_s=0.05, buffer_s=0.3))
    assert len(kept._kept) == 10
    one = PlanBuffer(NEWEST)
    one.add(plan_of(face(), 0, 1.0, target_times_s=np.array([1.1])), np.array([[0.3]]), 1.0)
    assert one.read(np.array([[1.05], [1.1], [1.2]])).ravel() == pytest.approx([0.3, 0.3, 0.3])


def test_a_plan_is_followed_then_held_then_left_for_neutral() -> None:
    config, pace = MotionConfig(), Pace.of(CALIBRATION, MotionConfig())
    supply = Supply(received_s=10.0, end_s=10.25)

    def state(now_s: float, *, home: bool = False) -> str:
        return next_state(now_s, supply, 0.1, pace, config, home=home)

    assert state(10.15 + config.beyond_s) == "following"
    assert state(10.15 + config.beyond_s + 0.01) == "holding"
    assert state(10.15 + config.hold_s - 0.01) == "holding"
    assert state(10.15 + config.hold_s + 0.01) == "returning"
    assert state(12.0, home=True) == "neutral"


@given(st.floats(0.0, 0.5), st.floats(0.0, 0.5), st.floats(0, 1.6))
def test_the_way_home_always_begins_early_enough(end_s: float, ahead_s: float, later_s: float) -> None:
    config = MotionConfig()
    pace = Pace.of(CALIBRATION, config)
    if later_s >= config.neutral_within_s - pace.home_s:
        state = next_state(later_s, Supply(0.0, end_s), ahead_s, pace, config, home=False)
        assert state == "returning" or later_s < 0.1


def test_over_half_a_second_late_only_lasting_strong_units_stay_and_fewer_commands_are_due() -> None:
    rule = Degrade(0.5)
    rows = np.stack([face(AU12=KEY_INTENSITY + 0.1, AU1=0.9 * (h < 4), AU4=0.1) for h in range(9)])
    rule.consider(0.45, 0.0)
    np.testing.assert_array_equal(rule.keep(rows), rows)
    for tick in range(60):  # one late plan is no rule
        rule.consider(0.7 if tick % 20 else 0.3, tick / 60)
        assert not rule.on
    rule.consider(0.51, 2.0)
    rule.consider(0.51, 2.5)
    kept = rule.keep(rows)
    assert (kept.max(axis=0) > 0).sum() == 1
    np.testing.assert_array_equal(kept[:, 8], rows[:, 8])
    due = sum(not rule.skips(t / 60) for t in range(60))
    assert due == pytest.approx(RATE_HZ, abs=1)
    rule.consider(0.41, 3.0)
    assert rule.on, "hysteresis"
    rule.consider(0.39, 3.0)
    assert not rule.on
    assert not rule.skips(1.0)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"buffer_s": 0.6}, r"buffer_s.*0\.2, 0\.5"),
        ({"longest_look_ahead_s": 0.6}, "longest_look_ahead_s"),
        ({"hold_s": 0.3}, "hold_s"),
        ({"beyond_s": 0.3}, "beyond_s"),
        ({"neutral_within_s": 2.0}, "neutral_within_s"),
        ({"neutral_within_s": 0.2}, "neutral_within_s"),
        ({"late_s": -0.1}, "late_s"),
        ({"margin_s": float("nan")}, "margin_s"),
        ({"slew_per_s": 0.0}, "slew_per_s"),
    ],
)
def test_a_setting_that_could_keep_no_promise_is_refused(change: dict[str, float], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        MotionConfig(**change)  # type: ignore[arg-type]
