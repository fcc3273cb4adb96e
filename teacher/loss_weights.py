"""Weights of the tuning loss; no torch here, so that the command line can read them at once."""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class LossWeights:
    """Weights of the terms; 0 turns one off."""

    cross_entropy: float = 1.0
    """Cross-entropy on annotated probabilities and activations."""
    ccc: float = 0.05
    """1 - CCC of the probabilities: against collapse to the mean."""
    regression: float = 0.0
    """Squared error of probabilities, rare units weighted up: costs calibration."""
    focal: float = 0.0
    """Focal loss on activations: costs calibration."""
    temporal: float = 0.0
    """Squared change from frame to frame: flattens reactions."""

    speaker_au: float = 5.0
    """Training-only: the speaker's own units, read off the media tokens, where they are known."""

    def __post_init__(self) -> None:
        """Refuse what rewards errors, or asks for nothing."""
        listener = (self.cross_entropy, self.ccc, self.regression, self.focal, self.temporal)
        if min(*listener, self.speaker_au) < 0 or max(listener) == 0:
            raise ValueError(f"loss weights ≥ 0, one of the listener's above it, are needed; got {self}")
