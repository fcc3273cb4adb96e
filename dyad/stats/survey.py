"""Everything that is measured of one dataset, from its sessions to plain data."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dyad import media
from dyad.action_units import FACS_MEANING
from dyad.clock import FPS
from dyad.layouts import processed, recordings
from dyad.metrics.units import HIGH, LOW, frequency_groups
from dyad.session import Session
from dyad.stats import lags, planted, rates, shape, voice, weights
from dyad.stats.deals import too_few
from dyad.stats.lags import Lags
from dyad.stats.rates import Rates
from dyad.stats.weights import Strength, Weights

Floats = NDArray[np.floating]


@dataclass(frozen=True)
class Survey:
    """All results; `lags` is None where no speaker is known, and `why_no_lags` then says why."""

    rates: Rates
    groups: dict[str, list[str]]
    weights: Weights
    strength: Strength
    shapes: NDArray[np.float64]
    shape_counts: NDArray[np.int64]
    lags: Lags | None
    why_no_lags: str
    planted: dict[tuple[str, str], tuple[float, int]]
    notes: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class LagSettings:
    """How lags are looked for."""

    max_lag_s: float = 3.0
    surrogates: int = 200
    sessions: int = 400
    """More than these are not needed, and cost memory; an even choice is taken."""
    seconds: float = 120.0
    """Of each session, from its start."""
    sound: bool = True
    seed: int = 0


def take(root: Path, sessions: Sequence[Session], au_names: Sequence[str], settings: LagSettings) -> Survey:
    """Measure a dataset; raises ValueError when it has no session or no annotation."""
    found = rates.measure(sessions, au_names)
    if len(found.unknown_units) == len(au_names):
        raise ValueError(
            f"{root}: none of {found.sessions} sessions has an annotated unit; give a dataset with listeners, "
            "or label it first with python -m teacher.label"
        )
    groups = frequency_groups(found.rate)
    curves, counts = shape.around_starts(sessions, len(au_names))
    measured, why, notes = _lags(root, sessions, au_names, settings)
    return Survey(
        rates=found,
        groups={name: [au_names[a] for a in members] for name, members in groups.items()},
        weights=weights.suggest(found.rate, np.nan_to_num(found.events_per_minute * found.known * found.minutes)),
        strength=weights.strength(found.rate, au_names),
        shapes=curves,
        shape_counts=counts,
        lags=measured,
        why_no_lags=why,
        planted=planted.lags_ms(root, [s.id for s in sessions]),
        notes=tuple(notes),
    )


def _lags(
    root: Path, sessions: Sequence[Session], au_names: Sequence[str], settings: LagSettings
) -> tuple[Lags | None, str, list[str]]:
    chosen = list(sessions)
    if len(chosen) > settings.sessions:
        chosen = [chosen[int(i)] for i in np.linspace(0, len(chosen) - 1, settings.sessions)]
    cut, notes = round(settings.seconds * FPS), []
    cues, units = [], []
    for session in chosen:
        n = min(session.n_frames, cut)
        cues.append(np.concatenate([_own(root, session, au_names, n), _heard(session, n, settings, notes)], axis=1))
        units.append(lags.rises(_listener(session)[:n]))
    names = [*(f"{u} rises" for u in au_names), *voice.CUES]
    known = [c for c in range(len(names)) if any(not np.isnan(s[:, c]).all() for s in cues)]
    if not known:
        return None, "neither the speakers' own units nor their sound is known", notes
    told = [i for i, c in enumerate(cues) if not np.isnan(c[:, known]).all()]
    clips = recordings.of(root, [chosen[i] for i in told])
    if why := too_few(len(told), clips):
        return None, f"there are {why}", notes
    measured = lags.measure(
        [cues[i][:, known] for i in told],
        [units[i] for i in told],
        [names[c] for c in known],
        au_names,
        max_lag_s=settings.max_lag_s,
        surrogates=settings.surrogates,
        seed=settings.seed,
        clips=clips,
    )
    return measured, "", notes


def _listener(session: Session) -> Floats:
    """Probabilities [T, A], or activations of units that have none."""
    without = np.isnan(session.prob).all(axis=0)
    return np.where(without, session.act, session.prob)


def _own(root: Path, session: Session, au_names: Sequence[str], n: int) -> Floats:
    """Rises of the speaker's own units [n, A], NaN where they are not known."""
    own, out = processed.speaker_units(root, session.id, au_names), np.full((n, len(au_names)), np.nan)
    if own is not None:
        own = lags.rises(own[:n])
        out[: len(own)] = own
    return out


def _heard(session: Session, n: int, settings: LagSettings, notes: list[str]) -> Floats:
    """Cues of the speaker's voice [n, 3], NaN where there is no sound."""
    silent = np.full((n, len(voice.CUES)), np.nan)
    if not settings.sound:
        return silent
    try:
        return voice.cues(media.read_audio(session.speaker_audio_path), n)
    except media.MediaError as error:
        notes.append(f"{session.id}: no sound: {error}")
        return silent


def as_json(survey: Survey) -> dict[str, Any]:
    """Plain data; what is undefined is null."""
    r, w = survey.rates, survey.weights
    columns = {
        "known_share": r.known,
        "sessions_annotated": r.sessions_known,
        "prob_mean": r.prob_mean,
        "active_share": r.rate,
        "prob_while_active": r.strength,
        "movements_per_minute": r.events_per_minute,
        "duration_median_s": r.duration_s,
        "duration_90_percent_s": r.long_s,
        "weight_minus_log": w.minus_log,
        "weight_offset_log": w.offset_log,
        "weight_effective_number": w.effective_number,
        "weight_as_the_requirement_writes_it": w.requirement,
    }
    units = [
        {"unit": u, "meaning": FACS_MEANING.get(u, ""), **{k: _number(v[a]) for k, v in columns.items()}}
        for a, u in enumerate(r.au_names)
    ]
    return {
        "sessions": r.sessions,
        "minutes": round(r.minutes, 3),
        "unannotated_units": r.unknown_units,
        "frames_without_any_active_unit": _number(r.still),
        "active_units_per_frame": _number(r.active_at_once),
        "units": units,
        "groups": {"high_from": HIGH, "low_below": LOW, **survey.groups},
        "together_phi": [[_number(v) for v in row] for row in r.together],
        "active_given": [[_number(v) for v in row] for row in r.given],
        "loss": {k: _number(v) if isinstance(v, float) else v for k, v in vars(survey.strength).items()},
        "lags": _lags_json(survey),
        "notes": list(survey.notes),
    }


def _lags_json(survey: Survey) -> dict[str, Any]:
    if survey.lags is None:
        return {"measured": False, "why": survey.why_no_lags}
    pairs = []
    for lag in survey.lags.found:
        truth = survey.planted.get((lag.cue.removesuffix(" rises"), lag.unit))
        row = {k: _number(v) if isinstance(v, float) else v for k, v in vars(lag).items()}
        pairs.append(row | ({"planted_ms": round(truth[0], 1), "planted_movements": truth[1]} if truth else {}))
    return {
        "measured": True,
        "sessions": survey.lags.sessions,
        "surrogates": survey.lags.surrogates,
        "real": len(survey.lags.real()),
        "tried": len(pairs),
        "pairs": pairs,
    }


def _number(value: float) -> float | None:
    return round(float(value), 6) if math.isfinite(value) else None
