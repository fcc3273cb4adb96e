"""Every table of the report, once: as text for the terminal, as HTML for the page."""

from __future__ import annotations

import html
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from distill import rivals
from distill.closeness import SHORTEST
from distill.movement import FAINT
from distill.scoring import MODEL, Score, System
from dyad.clock import FPS

if TYPE_CHECKING:
    from distill.report import Report

INTENSITY = {
    "macro_ccc": "CCC",
    "macro_skill": "skill",
    "macro_ccc_rare": "CCC rare",
    "macro_pearson": "Pearson",
    "macro_mae": "MAE",
    "macro_rmse": "RMSE",
}
ACTIVE = {
    "macro_f1": "F1",
    "macro_auprc": "AUPRC",
    "macro_event_f1": "event F1",
    "macro_precision": "precision",
    "macro_recall": "recall",
    "macro_ece": "ECE",
}
WITH_INTERVAL = ("macro_ccc", "macro_skill", "macro_ccc_rare", "macro_f1", "macro_auprc", "macro_event_f1")
OFTEN = {"high": "often", "mid": "sometimes", "low": "seldom"}
MOVES = {
    "dtw": "DTW",
    "lag_ms": "lag, ms",
    "correlation": "r there",
    "within_a_frame": "in a frame",
    "speed_p95": "speed p95",
    "speed_above": "too fast",
    "acceleration_above": "too abrupt",
    "jerk_above": "too jerky",
    "jerk_p95": "jerk p95",
    "smoothness": "smoothness",
}
REACT = {
    "frdiv": "FRDiv",
    "frvar": "FRVar",
    "frdvs": "FRDvs",
    "frcorr": "FRCorr",
    "frcorr_moving": "of moving units",
    "frdist": "FRDist",
    "frsyn": "FRSyn",
    "undefined": "undefined",
}


@dataclass(frozen=True)
class Table:
    """Rows of cells under columns, and what has to be known to read them."""

    title: str
    columns: tuple[str, ...]
    rows: list[tuple[str, list[str]]]
    notes: tuple[str, ...] = ()

    def text(self) -> list[str]:
        """Lines for the terminal."""
        first = max(len(self.title), *(len(name) for name, _ in self.rows))
        widths = [max(len(c), *(len(cells[i]) for _, cells in self.rows)) for i, c in enumerate(self.columns)]
        lines = [(self.title, list(self.columns)), *self.rows]
        made = [
            f"{name:{first}}" + "".join(f"  {cell:>{w}}" for cell, w in zip(cells, widths, strict=True))
            for name, cells in lines
        ]
        return [*made, *(f"  {note}" for note in self.notes)]

    def html(self) -> str:
        """A heading, a table and its notes."""
        head = "".join(f"<th>{html.escape(c)}</th>" for c in ("", *self.columns))
        body = "".join(
            f"<tr><td>{html.escape(name)}</td>" + "".join(f"<td>{html.escape(c)}</td>" for c in cells) + "</tr>"
            for name, cells in self.rows
        )
        notes = "".join(f"<p class='note'>{html.escape(note)}</p>" for note in self.notes)
        title = html.escape(self.title[0].upper() + self.title[1:])
        return f"<h2>{title}</h2><div class='wide'><table><tr>{head}</tr>{body}</table></div>{notes}"


def number(value: float | None, digits: int = 3) -> str:
    """A dash when undefined."""
    return f"{value:.{digits}f}" if value is not None and math.isfinite(value) else "–"


def cell(score: Score, digits: int = 3) -> str:
    """`0.310 [0.250, 0.360]`; a dash when undefined, no interval for a single session."""
    return f"{number(score.value, digits)}{interval(score, digits)}" if math.isfinite(score.value) else "–"


def interval(score: Score, digits: int = 3, sign: str = "") -> str:
    """` [0.250, 0.360]`, nothing where there is none."""
    ends = f"{score.low:{sign}.{digits}f}, {score.high:{sign}.{digits}f}"
    return f" [{ends}]" if math.isfinite(score.low) else ""


def all_of(report: Report) -> list[Table]:
    """Every table with all its rows."""
    made = [intensity(report), activity(report), groups(report), movement(report), reactions(report)]
    return [*made, quality(report)] if report.reactions.quality is not None else made


def by_unit(report: Report, name: str, title: str) -> Table:
    """A score of every row unit by unit: of intensity, or of activation."""
    systems = report.main if name in report.main[MODEL].per_unit else report.activity.systems
    rows = [(row, [number(s.value) for s in system.per_unit[name]]) for row, system in systems.items()]
    return Table(f"{title} of every unit", report.evidence.au_names, rows)


def _macro(system: System, columns: Mapping[str, str], units: int) -> list[str]:
    """Means over units, with how many have the score where not all do."""
    made: list[str] = []
    for name in columns:
        score, defined = system.macro[name], system.defined.get(name, units)
        shown = cell(score) if name in WITH_INTERVAL else number(score.value)
        partial = math.isfinite(score.value) and defined < units and name != "macro_ccc_rare"
        made.append(f"{shown} ({defined})" if partial else shown)
    return made


def intensity(report: Report) -> Table:
    """How well every row follows the annotated probability."""
    units = len(report.evidence.au_names)
    rows = [(name, _macro(s, INTENSITY, units)) for name, s in report.main.items()]
    known = [n for n in rivals.KNOWS_THE_LISTENER if n in report.main]
    notes = [f"{' and '.join(known)}: they know the listener, which no live robot does"]
    notes += [
        f"{b.name}: uses up to {1000 * b.look_ahead_frames / FPS:.0f} ms of the speaker's future"
        for b in report.evidence.baselines
        if b.look_ahead_frames
    ]
    notes.append(f"means over {units} units; (n): over the n that have the score")
    return Table("intensity", tuple(INTENSITY.values()), rows, tuple(notes))


def activity(report: Report) -> Table:
    """Is the unit active?"""
    act, units = report.activity, len(report.evidence.au_names)
    rows = [(name, _macro(s, ACTIVE, units)) for name, s in act.systems.items()]
    notes = [f"thresholds of {name} tuned on {act.tuned_on[name]}" for name in _tuned(report)]
    notes.append(f"events: onsets at most {1000 * act.tolerance_frames / FPS:.0f} ms apart")
    return Table("active or not", tuple(ACTIVE.values()), rows, tuple(notes))


def _tuned(report: Report) -> list[str]:
    return [MODEL, *(b.name for b in report.evidence.baselines), *(["mimicry"] if "mimicry" in report.main else [])]


def groups(report: Report) -> Table:
    """Units that listeners show often, sometimes and seldom, apart."""
    wanted = {"ccc": "CCC", "f1": "F1", "auprc": "AUPRC", "event_f1": "event F1"}
    present = [g for g in OFTEN if report.members[g]]
    columns = tuple(f"{OFTEN[g]} {title}" for g in present for title in wanted.values())
    rows: list[tuple[str, list[str]]] = []
    for name, active in report.activity.systems.items():
        both = {g: report.main[name].groups[g] | active.groups[g] for g in present}
        rows.append((name, [number(both[g][n].value) for g in present for n in wanted]))
    members = [f"{word}: {', '.join(report.members[g]) or 'none'}" for g, word in OFTEN.items()]
    notes = ("often: active in 20 % of the training frames or more; seldom: in less than 5 %", "; ".join(members))
    return Table("by frequency", columns, rows, notes)


def movement(report: Report) -> Table:
    """Timing, and what a robot's motors are asked for."""
    digits = {"lag_ms": 0, "speed_p95": 2, "jerk_p95": 0, "smoothness": 1}
    rows: list[tuple[str, list[str]]] = []
    for name, track in report.movement.tracks.items():
        scores = {k: (track.scores[k], digits.get(k, 3)) for k in MOVES}
        if not track.told:
            scores["lag_ms"] = (Score(float("nan"), float("nan"), float("nan")), 0)
        rows.append(
            (name, [cell(s, d) if k in ("dtw", "lag_ms") else number(s.value, d) for k, (s, d) in scores.items()])
        )
    robot = report.movement.robot
    jerk = f"{robot.limits.jerk_per_s3:g} per second cubed" if math.isfinite(robot.limits.jerk_per_s3) else "any jerk"
    limits = (
        f"robot {robot.name}: at most {robot.limits.velocity_per_s:g} per second, "
        f"{robot.limits.acceleration_per_s2:g} per second squared and {jerk}; too fast, too abrupt, too jerky: share "
        "of frames above, before any smoothing"
    )
    timing = (
        f"lag > 0: late, 0 is meant, looked for up to a third of a session, – where r is below {FAINT} or no more than "
        "chance; in a frame: share of sessions"
    )
    notes = (f"DTW: per frame and unit; {timing}", limits)
    return Table("time and motors", tuple(MOVES.values()), rows, notes)


def reactions(report: Report) -> Table:
    """The REACT challenge's scores."""
    found = report.reactions
    columns = {k: title for k, title in REACT.items() if any(k in s for s in found.scores.values())}
    rows = [(name, [number(scores.get(k)) for k in columns]) for name, scores in found.scores.items()]
    short, long = (n / FPS for n in found.frames)
    span = f"{short:.0f} s" if short == long else f"{short:.0f} to {long:.0f} s, each at its own length"
    notes = [
        f"sessions of {span}, our units, 30 per second, means over predictions: no published table compares",
        "FRDiv is 0 for every row of one curve; more is not better: read beside the ground truth's own values",
    ]
    if found.scored:
        whose = "the listener's own reaction alone, for nobody says which others are appropriate (identity matrix)"
        whose = whose if found.own_alone else "the appropriate reactions that the dataset names"
        notes.append(f"FRCorr, FRDist: the first {found.scored} sessions, against {whose}")
        notes.append("FRCorr: a unit that never moves counts 0, as in the challenge; of moving units: it is left out")
        notes.append(_followed(report))
    return Table("reactions", tuple(columns.values()), rows, tuple(notes))


def _followed(report: Report) -> str:
    found = report.reactions
    if found.followed == 0:
        known = any(case.speaker is not None for case in report.evidence.cases)
        return f"FRSyn: – {f'sessions of {_least_s()} s or more are needed' if known else 'speakers are not measured'}"
    return (
        f"FRSyn: {found.followed} sessions of {_least_s()} s or more whose speakers are measured; a unit that is still "
        "at some lag (undefined: their share) makes it the largest"
    )


def _least_s() -> str:
    return f"{SHORTEST / FPS:.1f}"


def quality(report: Report) -> Table:
    """Do the draws hold what listeners did?"""
    q = report.reactions.quality
    assert q is not None
    wanted: Sequence[tuple[str, Score]] = (
        ("variance, draws / truth", q.variance_ratio),
        ("variance within sessions, draws / truth", q.within_ratio),
        ("mean speed, draws / truth", q.speed_ratio),
        ("CRPS of the draws", q.crps),
        ("CRPS of the deterministic curve (its MAE)", q.mae),
        ("skill of the deterministic curve", q.skill),
        ("skill of the draws' mean, its own noise taken off", q.skill_of_mean),
    )
    return Table("the draws", ("value",), [(name, [cell(score)]) for name, score in wanted])
