"""Follow, hold, return: what a controller does about the plan that it has, or has no longer.

    following ──plan ran out──▶ holding ──too long──▶ returning ──home──▶ neutral ──a plan──▶ following

The way home begins early enough for the motors to be there `neutral_within_s` after the last valid plan, whatever the
face was about. Times in seconds on the controller's clock.
"""

from dataclasses import dataclass

import numpy as np

from deploy.calibration import Calibration
from deploy.motion.config import MotionConfig
from deploy.motion.limits import Channels, gentle_speed, ramp_s
from deploy.motion.states import State

LEAST_FOLLOWED_S = 0.1
"""Plans at 10 Hz and more never let a face go home between two of them, however slow its motors are."""


@dataclass(frozen=True)
class Pace:
    """Speeds and times of one robot's way home."""

    swift: Channels
    """[C] speed limits while following."""
    gentle: Channels
    """[C] speed limits on the way home."""
    settle_s: float
    """From the last command until the motors are where it said."""
    home_s: float
    """From turning home until the motors are there, at worst."""

    @classmethod
    def of(cls, calibration: Calibration, config: MotionConfig) -> "Pace":
        """As gentle as `return_s` and `neutral_within_s` allow."""
        velocity, acceleration, jerk = calibration.limits
        settle_s = calibration.settle_s
        within_s = min(config.return_s, config.neutral_within_s - settle_s - LEAST_FOLLOWED_S)
        gentle = gentle_speed(velocity, acceleration, jerk, within_s)
        way_s = ramp_s(velocity, acceleration, jerk) + 1 / gentle + ramp_s(gentle, acceleration, jerk)
        return cls(velocity, gentle, settle_s, float(way_s.max(initial=0.0)) + settle_s)


@dataclass(frozen=True)
class Supply:
    """The newest plan, as far as time is concerned."""

    received_s: float
    end_s: float
    """When its last row is due."""


def next_state(now_s: float, supply: Supply, ahead_s: float, pace: Pace, config: MotionConfig, *, home: bool) -> State:
    """Where the newest plan leads when it is read `ahead_s` beyond now; `home`: the face rests on neutral."""
    ran_out_s = max(supply.received_s, supply.end_s - ahead_s)
    turn_s = min(ran_out_s + config.hold_s, supply.received_s + config.neutral_within_s - pace.home_s)
    if now_s >= max(turn_s, supply.received_s + LEAST_FOLLOWED_S):
        return "neutral" if home else "returning"
    return "holding" if now_s > ran_out_s + config.beyond_s else "following"


def bounded_reach(ahead_s: Channels, now_s: float, supply: Supply, beyond_s: float) -> Channels:
    """Look-ahead [C] as far as the plan, and what is read beyond it, goes."""
    return np.minimum(ahead_s, max(supply.end_s + beyond_s - now_s, 0.0))
