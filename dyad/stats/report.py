"""A survey as text for a terminal, and the YAML that turns its weights on."""

import math

from dyad.action_units import FACS_MEANING
from dyad.metrics.units import HIGH, LOW
from dyad.stats import planted
from dyad.stats.lags import Lag
from dyad.stats.survey import Survey
from dyad.stats.voice import CUES

VOICES = 4
"""Answers to the voice that are shown."""


def as_text(survey: Survey, title: str) -> str:
    """All tables, each with a sentence on how to read it."""
    r = survey.rates
    parts = [
        f"{title}: {r.sessions} sessions, {r.minutes:.1f} minutes, {len(r.au_names)} units",
        _units(survey),
        _whole(survey),
        _together(survey),
        _loss(survey),
        _lags(survey),
    ]
    if survey.notes:
        parts.append(
            "\n".join(survey.notes[:5]) + (f"\n… and {len(survey.notes) - 5} more" if survey.notes[5:] else "")
        )
    return "\n\n".join(parts)


def _units(survey: Survey) -> str:
    r, group = survey.rates, {u: name for name, members in survey.groups.items() for u in members}
    head = (
        f"{'unit':5} {'meaning':21} {'active':>8} {'moves/min':>9} {'lasts':>7} {'90 %':>7} "
        f"{'strength':>8} {'mean':>6} {'unknown':>8} {'group':>5} {'weight':>6}"
    )
    lines = [head]
    for a, unit in enumerate(r.au_names):
        if r.sessions_known[a] == 0:
            lines.append(f"{unit:5} {FACS_MEANING.get(unit, ''):21} not annotated in any session: masked everywhere")
            continue
        lines.append(
            f"{unit:5} {FACS_MEANING.get(unit, ''):21} {_rate(r.rate[a]):>8} {_number(r.events_per_minute[a]):>9} "
            f"{_number(r.duration_s[a], ' s'):>7} {_number(r.long_s[a], ' s'):>7} {_number(r.strength[a]):>8} "
            f"{_number(r.prob_mean[a]):>6} {_percent(1 - r.known[a]):>8} {group.get(unit, '–'):>5} "
            f"{_number(survey.weights.minus_log[a]):>6}"
        )
    lines.append(
        "active: share of annotated frames; lasts: half of the movements are shorter, 90 % are shorter than the"
    )
    lines.append("next column; strength: mean probability while active; weight: -log(share), mean 1, for a loss")
    return "\n".join(lines)


def _whole(survey: Survey) -> str:
    r, g = survey.rates, survey.groups
    return "\n".join(
        (
            f"No unit is active in {_percent(r.still)} of frames; {_number(r.active_at_once)} are at once, on average.",
            f"high (active ≥ {HIGH:.0%}): {' '.join(g['high']) or '–'}",
            f"mid: {' '.join(g['mid']) or '–'}",
            f"low (< {LOW:.0%}): {' '.join(g['low']) or '–'}",
        )
    )


def _together(survey: Survey, count: int = 6) -> str:
    r = survey.rates
    n = len(r.au_names)
    pairs = [(float(r.together[a, b]), a, b) for a in range(n) for b in range(a) if math.isfinite(r.together[a, b])]
    if not pairs:
        return "Together: no two units vary at the same time."
    said = [f"{r.au_names[b]} + {r.au_names[a]} {phi:.2f}" for phi, a, b in sorted(pairs, reverse=True)[:count]]
    return f"Most often together (correlation of being active, 1 = always): {', '.join(said)}"


def _loss(survey: Survey) -> str:
    s = survey.strength
    if not s.weighted_regression:
        return f"Weights for rare units are {s.why}."
    return f"Weights for rare units: {s.why}; stratify {s.stratify:g}, weighted regression {s.weighted_regression:g}."


def _lags(survey: Survey) -> str:
    if survey.lags is None:
        return f"Listener after speaker: not measured, because {survey.why_no_lags}."
    found, real = survey.lags, survey.lags.real()
    head = (
        f"Listener after speaker: {len(real)} of {len(found.found)} pairs follow one another more than chance "
        f"({found.surrogates} times speakers were dealt to other listeners)"
    )
    if not real:
        return head
    heard = [lag for lag in real if lag.cue in CUES][:VOICES]
    shown = found.strongest()
    return "\n".join(
        (
            f"{head}.",
            "What every unit follows most, and what follows the voice; all pairs are in stats.json:",
            f"{'speaker':14} {'listener':9} {'lag':>8} {'95 %':>15} {'r':>6}{'  planted' if survey.planted else ''}",
            *(_lag(survey, lag) for lag in [*shown, *(h for h in heard if h not in shown)]),
            "lag: from the speaker's onset to the listener's, at their steepest; negative: the listener is first;",
            "95 %: its interval when sessions are drawn again; r: correlation of onsets",
            *_planted(survey),
        )
    )


def _planted(survey: Survey) -> list[str]:
    """What a synthetic dataset says of its own lags."""
    if survey.lags is None or not survey.planted:
        return []
    c = planted.check(survey.lags, survey.planted)
    lines = ["planted: median lag that this synthetic dataset was made with, start to start, and of how many movements"]
    if c.planted:
        found = f"of {c.planted} pairs that were planted {planted.OFTEN} times or more, {c.found} are found"
        errors = f", off by {c.median_error_ms:.0f} ms in the median, {c.worst_error_ms:.0f} ms at worst"
        lines.append(found + (errors if c.found else ""))
    return lines


def _lag(survey: Survey, lag: Lag) -> str:
    truth = survey.planted.get((lag.cue.removesuffix(" rises"), lag.unit))
    made = f"  {truth[0]:.0f} ms ({truth[1]})" if truth else ""
    interval = f"{lag.low_ms:.0f} … {lag.high_ms:.0f}"
    return f"{lag.cue:14} {lag.unit:9} {lag.lag_ms:>5.0f} ms {interval:>15} {lag.correlation:>6.2f}{made}"


def loss_yaml(survey: Survey) -> str:
    """Presets that turn frequency weights on as far as the units are uneven, and the weights as numbers."""
    s = survey.strength
    lines = [
        "# How rare units are given more weight. The commands compute the weights themselves; what they take is how",
        "# strongly the weighted term counts. Weighting costs calibration: keep it small.",
        f"# {s.why}",
        "#",
        "# python -m distill.train --config this-file: -log(f + ε), and rare windows are drawn more often",
        f"stratify: {s.stratify}",
        "loss:",
        f"  weighted_regression: {s.weighted_regression}",
        "# python -m teacher.tune: 1/log(1.02 + f); write instead",
        "# loss:",
        f"#   regression: {s.weighted_regression}",
        "#",
        "# The requirement's 1/log(f + ε) is negative for every unit, and is used nowhere.",
        f"# {'unit':6} {'active':>8} {'1/log(f+ε)':>11} {'-log(f+ε)':>10} {'1/log(1.02+f)':>14} {'effective n':>12}",
    ]
    w, r = survey.weights, survey.rates
    for a, unit in enumerate(r.au_names):
        lines.append(
            f"# {unit:6} {_rate(r.rate[a]):>8} {_number(w.requirement[a]):>11} {_number(w.minus_log[a]):>10} "
            f"{_number(w.offset_log[a]):>14} {_number(w.effective_number[a]):>12}"
        )
    return "\n".join(lines) + "\n"


def _rate(value: float) -> str:
    """A share in percent, with as many digits as tell it from the bounds of the groups."""
    if not math.isfinite(value):
        return "–"
    digits = (d for d in range(1, 9) if all((round(100 * value, d) >= 100 * b) == (value >= b) for b in (HIGH, LOW)))
    return f"{100 * value:.{next(digits, 9)}f} %"


def _percent(value: float) -> str:
    return f"{100 * value:.1f} %" if math.isfinite(value) else "–"


def _number(value: float, unit: str = "") -> str:
    return f"{value:.2f}{unit}" if math.isfinite(value) else "–"
