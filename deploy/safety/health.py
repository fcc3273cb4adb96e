"""Whether a robot can be driven now, and why not: the same answer on the pages of a controller and of a run."""

from typing import Any

from deploy.motion.heart import Heart
from deploy.motion.states import Status


def of_heart(heart: Heart) -> tuple[str | None, dict[str, Any]]:
    """Why it cannot be driven, None where it can; and what the page shows of it."""
    status = heart.status()
    words = {"state": status.state, "stop_reason": status.stop_reason}
    ages = {"beat_age_s": round(heart.silent_s, 3), "last_plan_age_s": status.last_plan_age_s}
    return _ailment(heart, status), words | ages


def _ailment(heart: Heart, status: Status) -> str | None:
    """What is worst comes first."""
    if status.doubt is not None:
        return status.doubt
    if not heart.beats:
        return "the heart does not beat"
    if status.stop_reason is None and status.state == "lost":
        return "the robot does not answer"
    return status.stop_reason
