"""The report's pictures, each as PNG.

Shapes: T frames, K draws, A units.
"""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from distill.scoring import MODEL
from dyad.clock import FPS

if TYPE_CHECKING:
    from distill.report import Report

Floats = NDArray[np.float32]
COLOURS = {MODEL: "#1f5fa8", "mimicry": "#c98a1b", "ground truth": "#555555"}
OTHERS = ("#7a3e9d", "#2f8f5b", "#b0413e")
"""Baselines, in their order."""
WIDTH = 9.5


def _plots(rows: int, columns: int, height: float, **more: Any) -> tuple[Any, Any]:
    """A figure without a window, and its axes without the upper and right line."""
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(rows, columns, figsize=(WIDTH, height), squeeze=False, **more)
    for axis in axes.flat:
        axis.spines[["top", "right"]].set_visible(False)
    return figure, axes


def _png(figure: Any) -> bytes:
    import matplotlib.pyplot as plt

    file = io.BytesIO()
    figure.tight_layout()
    figure.savefig(file, format="png", dpi=110)
    plt.close(figure)
    return file.getvalue()


def _compared(report: Report, *names: str) -> dict[str, str]:
    """The model, the baselines and the rows wanted, with their colours, as far as they are there."""
    chosen = {MODEL: COLOURS[MODEL]}
    for i, baseline in enumerate(report.evidence.baselines):
        chosen[baseline.name] = OTHERS[i % len(OTHERS)]
    return chosen | {n: COLOURS[n] for n in names if n in report.main}


def _unit_ticks(axis: Any, report: Report) -> None:
    names = [n.removeprefix("AU") for n in report.evidence.au_names]
    axis.set_xticks(np.arange(len(names)), names)
    axis.set_xlim(-0.6, len(names) - 0.4)


def units(report: Report) -> bytes:
    """CCC and F1 of every unit as bars with intervals."""
    figure, axes = _plots(2, 1, 5, sharex=True)
    compared = _compared(report, "mimicry")
    for axis, title in ((axes[0, 0], "CCC"), (axes[1, 0], "F1")):
        width = 0.8 / len(compared)
        for i, (name, colour) in enumerate(compared.items()):
            scores = report.main[name] if title == "CCC" else report.activity.systems[name]
            values = scores.per_unit[title.lower()]
            value, low, high = (np.array([getattr(s, k) for s in values]) for k in ("value", "low", "high"))
            x = np.arange(len(values)) + (i - (len(compared) - 1) / 2) * width
            axis.bar(x, np.nan_to_num(value), 0.92 * width, color=colour, label=name)
            known = np.isfinite(low)
            axis.errorbar(x[known], value[known], [(value - low)[known], (high - value)[known]], fmt="none",
                          ecolor="black", elinewidth=0.9)  # fmt: skip
        axis.set_ylabel(title)
        axis.axhline(0, color="black", lw=0.6)
    axes[0, 0].legend(frameon=False, ncol=4, loc="upper left", bbox_to_anchor=(0, 1.2))
    _unit_ticks(axes[1, 0], report)
    axes[1, 0].set_xlabel("action unit; lines: 95 % over sessions, none where a single session holds the unit")
    return _png(figure)


def horizons(report: Report) -> bytes:
    """Macro CCC and skill over the look-ahead."""
    figure, axes = _plots(1, 2, 3)
    ahead = list(report.systems)
    for axis, name, title in zip(axes[0], ("macro_ccc", "macro_skill"), ("macro CCC", "skill"), strict=True):
        for system, colour in _compared(report, "mimicry").items():
            known = [h for h in ahead if system in report.systems[h]]
            scores = [report.systems[h][system].macro[name] for h in known]
            x = [h * 1000 / FPS for h in known]
            axis.plot(x, [s.value for s in scores], color=colour, label=system, marker="o", ms=3)
            axis.fill_between(x, [s.low for s in scores], [s.high for s in scores], color=colour, alpha=0.15, lw=0)
        axis.set_xlabel("ms ahead")
        axis.set_ylabel(title)
        axis.set_ylim(bottom=min(0, axis.get_ylim()[0]))
    axes[0, 0].legend(frameon=False, loc="lower left")
    return _png(figure)


def liveliest(true: Floats, count: int) -> list[int]:
    """Units that move most in what is drawn of a session, [T, A]."""
    known = ~np.isnan(true)
    centre = np.where(known, true, 0).sum(axis=0) / np.maximum(known.sum(axis=0), 1)
    spread = np.where(known, true - centre, 0).std(axis=0)
    return [int(a) for a in np.argsort(-np.where(known.any(axis=0), spread, -1), kind="stable")[:count]]


def session(report: Report, index: int, units: int = 4, seconds: int = 40) -> bytes:
    """Prediction and baselines against truth, of the units that move most."""
    case, horizon = report.evidence.cases[index], report.horizon
    true = case.true(horizon)[: seconds * FPS]
    said = case.predicted.prob[: len(true), report.evidence.horizons.index(horizon)]
    colours = _compared(report)
    others = {
        b.name: b.predicted[index].prob[: len(true), b.horizons.index(horizon)] for b in report.evidence.baselines
    }
    chosen = liveliest(true, units)
    figure, axes = _plots(len(chosen), 1, 1.25 * len(chosen) + 0.6, sharex=True)
    time_s = (np.arange(len(true)) + horizon) / FPS
    for axis, unit in zip(axes[:, 0], chosen, strict=True):
        axis.plot(time_s, true[:, unit], color=COLOURS["ground truth"], lw=1, label="listener")
        for name, curve in others.items():
            axis.plot(time_s[: len(curve)], curve[:, unit], color=colours[name], lw=1, label=name)
        axis.plot(time_s, said[:, unit], color=COLOURS[MODEL], lw=1.5, label="model")
        axis.set_ylim(-0.02, 1.02)
        axis.set_ylabel(report.evidence.au_names[unit])
    axes[0, 0].legend(frameon=False, ncol=5, loc="lower right", bbox_to_anchor=(1, 1))
    axes[-1, 0].set_xlabel("seconds")
    axes[-1, 0].set_xlim(time_s[0], time_s[-1])
    return _png(figure)


def draws(report: Report, index: int, units: int = 3, seconds: int = 30) -> bytes:
    """Draws, prediction and truth of one session."""
    assert report.draws is not None
    case, horizon = report.evidence.cases[index], report.horizon
    true = case.true(horizon)[: seconds * FPS]
    said = case.predicted.prob[: len(true), report.evidence.horizons.index(horizon)]
    drawn = report.draws[index][:, : len(true)]
    chosen = liveliest(true, units)
    figure, axes = _plots(len(chosen), 1, 1.6 * len(chosen) + 0.6, sharex=True)
    time_s = (np.arange(len(true)) + horizon) / FPS
    for axis, unit in zip(axes[:, 0], chosen, strict=True):
        low, high = drawn[:, :, unit].min(axis=0), drawn[:, :, unit].max(axis=0)
        axis.fill_between(time_s, low, high, color="#9db9dc", alpha=0.45, lw=0, label=f"range of {len(drawn)} draws")
        for one, colour in zip(drawn[:2, :, unit], ("#2f8f5b", "#b0413e"), strict=False):
            axis.plot(time_s, one, color=colour, lw=0.9, label="one draw")
        axis.plot(time_s, true[:, unit], color=COLOURS["ground truth"], lw=1, label="listener")
        axis.plot(time_s, said[:, unit], color=COLOURS[MODEL], lw=1.6, label="deterministic")
        axis.set_ylim(-0.02, 1.02)
        axis.set_ylabel(report.evidence.au_names[unit])
    axes[0, 0].legend(frameon=False, ncol=5, loc="lower right", bbox_to_anchor=(1, 1), fontsize=9)
    axes[-1, 0].set_xlabel("seconds")
    axes[-1, 0].set_xlim(time_s[0], time_s[-1])
    return _png(figure)


def lags(report: Report) -> bytes:
    """How late every session's curve is."""
    figure, axes = _plots(1, 1, 3)
    axis, edges = axes[0, 0], (np.arange(-31, 32, 2)) * 1000 / FPS
    compared = _compared(report, "mimicry")
    for name, colour in compared.items():
        track = report.movement.tracks[name]
        own = np.array([v for v in track.lags_ms if np.isfinite(v)])
        whole = track.scores["lag_ms"].value
        label = f"{name}: {whole:+.0f} ms over all" if track.told else f"{name}: follows too faintly to have a lag"
        axis.hist(own, edges, color=colour, histtype="stepfilled", alpha=0.3)
        axis.hist(own, edges, color=colour, histtype="step", lw=1.4, label=label)
        if track.told:
            axis.axvline(whole, color=colour, lw=1.2, ls=":")
    axis.axvspan(-1000 / FPS, 1000 / FPS, color="#cccccc", alpha=0.5, lw=0, zorder=0, label="within a frame")
    axis.set_xlabel("lag of the best correlation with the listener, ms; > 0: late")
    axis.set_ylabel("sessions")
    axis.legend(frameon=False, fontsize=9)
    return _png(figure)


def reliability(report: Report) -> bytes:
    """Share active over predicted probability, and how many frames there are."""
    figure, axes = _plots(1, 2, 3.4, width_ratios=(1, 1.2))
    left, right = axes[0]
    left.plot([0, 1], [0, 1], color="#999999", lw=0.8, ls="--")
    for name, colour in _compared(report, "mimicry").items():
        if name in report.activity.reliability:
            probability, active, count = report.activity.reliability[name]
            some = count > 0
            ece = report.activity.systems[name].macro["macro_ece"].value
            left.plot(
                probability[some] / count[some], active[some] / count[some], color=colour, marker="o", ms=4, lw=1.2,
                label=f"{name}: ECE {ece:.3f}",
            )  # fmt: skip
            shares = np.where(some, count / count.sum(), np.nan)
            right.stairs(shares, np.linspace(0, 1, len(count) + 1), color=colour, lw=1.4)
    left.set_xlabel("predicted probability of being active")
    left.set_ylabel("share active")
    left.set_xlim(0, 1)
    left.set_ylim(0, 1)
    left.legend(frameon=False, fontsize=9, loc="upper left")
    right.set_xlim(0, 1)
    right.set_yscale("log")
    right.set_xlabel("predicted probability of being active")
    right.set_ylabel("share of frames")
    return _png(figure)


def speed(report: Report) -> bytes:
    """Speed per unit of model and listener against what the robot's motors follow."""
    figure, axes = _plots(1, 1, 3.6)
    axis, limit = axes[0, 0], report.movement.robot.limits.velocity_per_s
    compared = _compared(report, "ground truth")
    width = 0.8 / len(compared)
    for i, (name, colour) in enumerate(compared.items()):
        track = report.movement.tracks[name]
        x = np.arange(len(track.speed["p95"])) + (i - (len(compared) - 1) / 2) * width
        axis.bar(x, track.speed["p95"], 0.92 * width, color=colour, label=f"{name}, 95 % of the frames")
        axis.plot(x, track.speed["largest"], color=colour, ls="", marker="_", ms=9, mew=1.6)
    axis.axhline(limit, color="#b0413e", lw=1.2, ls="--", label=f"limit of robot {report.movement.robot.name}")
    axis.plot([], [], color="black", ls="", marker="_", ms=9, mew=1.6, label="largest of a session, mean")
    axis.set_ylabel("intensity per second")
    axis.set_xlabel("action unit")
    _unit_ticks(axis, report)
    axis.set_ylim(0, max(axis.get_ylim()[1], 1.1 * limit))
    axis.legend(frameon=False, ncol=2, fontsize=9, loc="lower left", bbox_to_anchor=(0, 1))
    return _png(figure)
