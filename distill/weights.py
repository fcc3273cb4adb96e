"""Weights of the distillation loss; no torch here, so that the command line can read them at once."""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class LossWeights:
    """Weights of the terms; 0 turns one off. Defaults follow measurement."""

    hard: float = 1.0
    """Cross-entropy on annotated probabilities and activations."""
    soft: float = 1.0
    """Cross-entropy on the teacher's probabilities and activations, where it labelled."""
    ccc: float = 0.2
    """1 - CCC of the probabilities: against collapse to the mean; more trades skill for CCC (docs/ablation.md)."""
    focal: float = 0.0
    """Focal loss on activations, instead of nothing: costs calibration."""
    weighted_regression: float = 0.0
    """Squared error weighted by inverse frequency."""
    temporal: float = 0.0
    """Squared change between frames: flattens reactions."""
    temperature: float = 1.0
    """Of the teacher's probabilities; 1 was best."""
    uncertainty_scale: float = 0.1
    """Teacher uncertainty at which a soft label counts half."""
    speaker_au: float = 1.0
    """Training-only: read the speaker's own units off the visual features, where they are known."""
