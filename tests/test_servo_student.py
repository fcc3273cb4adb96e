"""A student's own plans are driven as they are, and judged by what it said of every moment in the end."""

import numpy as np
import pytest

from benchmarks import servo_student
from benchmarks.servo_play import FIRST_ROW_S, HORIZONS, expressions
from deploy.run import ASSETS
from dyad.clock import FRAME_S

FRAMES = 240


@pytest.fixture(scope="module")
def seer() -> servo_student.Plans:
    """Plans [T, H, A] of a student that knows what comes."""
    curve = expressions(FRAMES / 30 + 1)
    return np.stack([curve(FIRST_ROW_S + FRAME_S * (t + np.arange(HORIZONS))) for t in range(FRAMES)])


def test_what_was_said_in_the_end_is_the_row_for_the_newest_frame(seer: servo_student.Plans) -> None:
    at_s = FIRST_ROW_S + FRAME_S * np.arange(FRAMES)
    np.testing.assert_allclose(servo_student.finally_said(seer)(at_s), seer[:, 0], atol=1e-6)
    between = servo_student.finally_said(seer)(at_s[:-1] + FRAME_S / 2)
    np.testing.assert_allclose(between, (seer[:-1, 0] + seer[1:, 0]) / 2, atol=1e-6)


def test_a_student_that_knows_what_comes_is_followed_on_time_and_late_without_looking_ahead(
    seer: servo_student.Plans,
) -> None:
    rows = {row["way"]: row for row in servo_student.rows_of(seer, "drawn", (0.1,))}
    assert list(rows) == list(servo_student.WAYS)
    assert rows["as it is"]["correlation"] > 0.99
    assert abs(rows["as it is"]["lag_ms"]) < 1000 * FRAME_S
    assert rows["not ahead"]["lag_ms"] > 150
    assert rows["not ahead"]["rms_error"] > 3 * rows["as it is"]["rms_error"]


def test_the_packaged_student_says_the_same_of_a_clip_every_time() -> None:
    first, again = (servo_student.plans_of(ASSETS / "engine", ASSETS / "clip.mp4", 1.0) for _ in range(2))
    assert first.shape == (30, HORIZONS, 17)
    np.testing.assert_array_equal(first, again)
