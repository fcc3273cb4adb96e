"""In step with the plans: a tick falls just after a plan has come, so that no plan ages while it waits for one.

Plans at 30 Hz and ticks at 60 have no common beginning: a plan waits for up to a tick, and everything in it is read so
much later. Where plans come in step with the ticks, every so many of them, the ticks' deadlines are moved a little,
one after another, until the plans come just before one. Where they do not (other rates, a jittering network) the
direction in which they come averages out, and the ticks stay as they are.
Source: Mardia & Jupp, "Directional statistics", 2000, 2.3: mean direction and circular spread.
"""

import cmath
import math

SHARE = 0.05
"""Of one plan in the mean."""
IN_STEP = 0.5
"""Length of the mean direction from which plans count as in step: 1 is always the same moment, 0 any; by chance one of
ten thousand means is so long."""
SPARE_S = 0.001
"""Between a plan and its tick, and one spread of the plans' moments more."""
SHIFT = 0.05
"""Most that one deadline is moved, in parts of the period: commands stay as even as the robot was promised."""
STALL_S = 0.08
"""A tick later than that (or than two and a half periods) is no longer the next one."""


class Rhythm:
    """The ticks' deadlines, when they really were, and where in a period plans come.

    `came` may be called from another thread than the rest: at worst one plan's say is lost.
    """

    def __init__(self, period_s: float) -> None:
        self.period_s = period_s
        self.ticked_s = -math.inf
        """When the last tick was; minus infinity before the first, and after a pause."""
        self._due_s = 0.0
        self._mean = 0j

    def pause(self) -> None:
        """Whatever comes next is a first tick."""
        self.ticked_s = -math.inf

    def elapsed(self, now_s: float) -> float | None:
        """A tick: time since the last one, a period for a first one, None for one that is far too late."""
        since_s, self.ticked_s = now_s - self.ticked_s, now_s
        if math.isinf(since_s):
            return self.period_s
        return since_s if since_s <= max(STALL_S, 2.5 * self.period_s) else None

    def came(self, now_s: float) -> None:
        """A plan came."""
        turn = 2 * math.pi * ((now_s - self._due_s) / self.period_s % 1.0)
        self._mean += SHARE * (cmath.rect(1.0, turn) - self._mean)

    def after(self, due_s: float) -> float:
        """When the tick after the one due at `due_s` is due: a period later, or up to SHIFT of one sooner or later."""
        shift_s = self._shift_s()
        self._mean *= cmath.rect(1.0, -2 * math.pi * ((due_s + shift_s - self._due_s) / self.period_s % 1.0))
        self._due_s = due_s + shift_s
        return self._due_s + self.period_s

    def _shift_s(self) -> float:
        length = min(abs(self._mean), 1.0)
        if length < IN_STEP:
            return 0.0
        spread_s = self.period_s / (2 * math.pi) * math.sqrt(-2 * math.log(length))
        late = cmath.phase(self._mean) / (2 * math.pi) + (SPARE_S + spread_s) / self.period_s
        late -= round(late)  # the nearer way round
        return self.period_s * min(max(late, -SHIFT), SHIFT)
