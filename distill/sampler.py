"""Which clips to train on: windows with rare units come up more often.

Every window of every session gets a weight: 1 plus the summed rarity of the units active in it. The draw of a step
depends on seed and step alone, so that a resumed run goes on exactly as an uninterrupted one.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from distill.batches import TrainingSession


def activity(session: TrainingSession) -> NDArray[np.float32]:
    """Activations [T, A] as annotated, else as the teacher thinks, NaN where neither says anything."""
    if session.soft is None:
        return session.act
    return np.where(np.isnan(session.act), 1 / (1 + np.exp(-session.soft.act_logit)), session.act).astype(np.float32)


class StratifiedSampler:
    """Draws (session, start frame) pairs."""

    def __init__(
        self, sessions: Sequence[TrainingSession], clip_frames: int, strength: float = 1.0, extra_share: float = 0.33
    ) -> None:
        """`strength` 0 draws all windows alike; 1 weighs by rarity. Sessions without any annotation make up
        `extra_share` of the draws. Raises ValueError when every session is shorter than a clip.
        """
        self._windows: list[tuple[int, int]] = []
        weights: list[float] = []
        rarity = self._rarity(sessions)
        for i, session in enumerate(sessions):
            act = np.nan_to_num(activity(session))
            for start in range(0, session.n_frames - clip_frames + 1, max(clip_frames // 4, 1)):
                active = act[start : start + clip_frames].max(axis=0)
                self._windows.append((i, start))
                weights.append(1.0 + strength * float((active * rarity).sum()))
        if not self._windows:
            longest = max((s.n_frames for s in sessions), default=0)
            raise ValueError(
                f"no session is as long as a clip of {clip_frames} frames (longest: {longest}); lower clip_frames"
            )
        annotated = np.array([not np.isnan(sessions[i].act).all() for i, _ in self._windows])
        self._share: NDArray[np.float64] = np.array(weights) / sum(weights)
        if annotated.any() and not annotated.all():
            for group, share in ((annotated, 1 - extra_share), (~annotated, extra_share)):
                self._share[group] *= share / self._share[group].sum()
        self._clip_frames, self._sessions = clip_frames, sessions

    @staticmethod
    def _rarity(sessions: Sequence[TrainingSession]) -> NDArray[np.float64]:
        """Per unit, how much rarer it is than the most frequent one, log scale, mean about 0.3."""
        act = np.concatenate([activity(s) for s in sessions])
        known = (~np.isnan(act)).sum(axis=0)
        rate = np.where(known > 0, np.nansum(act, axis=0) / np.maximum(known, 1), 0.0)
        rarity = np.log(max(rate.max(), 1e-3) / np.maximum(rate, 1e-3))
        return np.where(rate > 0, 0.2 * rarity, 0.0)

    def draw(self, count: int, rng: np.random.Generator) -> list[tuple[int, int]]:
        """`count` windows, each with a random shift inside its session."""
        picks = rng.choice(len(self._windows), count, p=self._share)
        shifts = rng.integers(0, max(self._clip_frames // 4, 1), count)
        out = []
        for pick, shift in zip(picks, shifts, strict=True):
            i, start = self._windows[pick]
            out.append((i, min(start + int(shift), self._sessions[i].n_frames - self._clip_frames)))
        return out
