"""Stored runs of the published code are met, file by file: whatever lies in ../shared/golden/react_metrics.

A file is a run of the challenge's scores (`pred` [N, K, T, D], `gt`, `speaker` [N, T, D], `neighbour` [N, N] and what
came out, `out_…`, `ccc_pairs`, `dtw_pairs`, `tlcc_…`) or of the Fréchet distance (`<name>_x`, `<name>_y` [n, D],
`<name>_fid`). Any N, K, T; channels that never move; pairs that were not computed are NaN. Files of the same form made
here, by the plain algorithms, go through the same checks on machines that have no stored run.
"""

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from test_metrics_react import plain_ccc, plain_dtw, plain_offset, reactions, spoil

from dyad.metrics import concordance, frechet, react, spread, synchrony, warping

Content = dict[str, NDArray[Any]]
GOLDEN = Path(__file__).resolve().parents[2] / "shared" / "golden" / "react_metrics"
STORED = sorted(GOLDEN.glob("*.npz"))
MAX_LAG = 49


def check(content: Content) -> int:
    """Compare all that a file holds with ours; the number of values compared."""
    names = [n.removesuffix("_fid") for n in content if n.endswith("_fid")]
    for name in names:
        got = frechet.frechet(content[f"{name}_x"], content[f"{name}_y"])
        assert got == pytest.approx(float(content[f"{name}_fid"]), abs=1e-6), name
    return len(names) + (_outputs(content) + _pairs(content) + _lags(content) if "pred" in content else 0)


def _outputs(content: Content) -> int:
    pred, target, speaker, neighbours = (content[k] for k in ("pred", "gt", "speaker", "neighbour"))
    many = max(pred.shape[:2]) > spread.DIRECT  # the published code then adds in another order, in float32
    wanted = {
        "out_FRC": (lambda: react.frcorr(pred, target, neighbours), 1e-6),
        "out_FRD": (lambda: react.frdist(pred, target, neighbours), 1e-9 * pred.shape[1] * 100),
        "out_TLCC": (lambda: react.frsyn(pred, speaker), 1e-6),
        "out_TLCC_mp_p1": (lambda: react.frsyn(pred, speaker, first_prediction=True), 1e-6),
        "out_FRDvs": (lambda: react.frdvs(pred), 1e-4 if many else 1e-6),
        "out_FRVar": (lambda: react.frvar(pred), 1e-6),
        "out_S_MSE_FRDiv": (lambda: react.frdiv(pred), 1e-4 if many else 1e-6),
    }
    wanted |= {f"{n}_mp_p1": wanted[n] for n in ("out_FRC", "out_FRD")}
    held = [n for n in content if n.startswith("out_")]
    for name in held:
        score, tolerance = wanted[name]
        assert score() == pytest.approx(float(content[name]), abs=tolerance, nan_ok=True), name
    return len(held)


def _pairs(content: Content) -> int:
    pred, target = content["pred"], content["gt"]
    compared = 0
    for name in ("ccc_pairs", "dtw_pairs"):
        for i, k, j in np.argwhere(~np.isnan(content[name]).reshape(*content[name].shape[:3], -1).any(axis=-1)):
            stored = content[name][i, k, j]
            if name == "ccc_pairs":
                pair = concordance.moments(pred[i, k][None]), concordance.moments(target[j][None])
                assert concordance.mean_concordance(*pair)[0, 0] == pytest.approx(stored, abs=1e-6), (i, k, j)
            elif k < 2:  # the others are compared by their least, below: several times as fast
                distances = warping.group_distances(pred[i, k], target[j], react.GROUPS)
                np.testing.assert_allclose(distances, stored, atol=1e-9, rtol=0, err_msg=f"{i}, {k}, {j}")
            compared += 1
    weights = [weight for _, _, weight in react.GROUPS]
    known = ~np.isnan(content["dtw_pairs"]).any(axis=-1)
    least = np.where(known, np.nan_to_num(content["dtw_pairs"]) @ weights, np.inf).min(axis=2)
    got = react.nearest_distance(pred, target, content["neighbour"])
    done = known.any(axis=-1)
    np.testing.assert_allclose(got[done], least[done], atol=1e-9, rtol=0)
    if "ccc_per_dim_00" in content:
        pair = concordance.moments(pred[0, :1]), concordance.moments(target[:1])
        np.testing.assert_allclose(concordance.concordance(*pair)[:, 0, 0], content["ccc_per_dim_00"], atol=1e-6)
    return compared


def _lags(content: Content) -> int:
    pred, speaker = content["pred"], content["speaker"]
    stored = content["tlcc_offset_signed"]
    np.testing.assert_array_equal(synchrony.synchrony(pred, speaker).offset, stored)
    for i, curve in enumerate(content.get("tlcc_curve_pred0", [])):
        got = synchrony.correlations(pred[i, :1], speaker[i], MAX_LAG)[:, 0].mean(axis=0)
        np.testing.assert_allclose(got, curve, atol=1e-6, rtol=0)  # NaN where it is NaN
    return stored.size


@pytest.mark.skipif(not STORED, reason="no stored run is on this machine")
@pytest.mark.parametrize("path", STORED, ids=lambda p: p.name)
def test_a_stored_run_of_the_published_code_is_met(path: Path) -> None:
    with np.load(path) as file:
        assert check(dict(file)) > 0, f"{path.name}: holds nothing that is known here"


def made_plainly(seed: int, n: int, k: int, frames: int, kind: str) -> Content:
    """A file's content, every number by the plain algorithm."""
    pred, target, speaker, neighbours = reactions(seed, n, k, frames)
    pred, target, speaker = spoil(kind, pred), spoil(kind, target, 1), spoil(kind, speaker, 2)
    ccc, distances = np.full((n, k, n), np.nan), np.full((n, k, n, 3), np.nan)
    for i, j in np.argwhere(neighbours == 1):
        for q in range(k):
            ccc[i, q, j] = plain_ccc(pred[i, q], target[j])
            parts = [plain_dtw(pred[i, q][:, a:b], target[j][:, a:b]) for a, b, _ in react.GROUPS]
            distances[i, q, j] = parts
    offsets = np.array([[plain_offset(p, s, MAX_LAG) for p in x] for x, s in zip(pred, speaker, strict=True)])
    nearest = np.nanmin(distances @ [w for _, _, w in react.GROUPS], axis=2)
    tensor = torch.from_numpy(pred)
    within = torch.cdist(tensor.flatten(2), tensor.flatten(2)) ** 2
    across = torch.cdist(tensor.transpose(0, 1).flatten(2), tensor.transpose(0, 1).flatten(2)) ** 2
    cells = pred[0, 0].size
    outputs = {
        "out_FRC": np.nanmax(ccc, axis=2).mean(axis=0).sum(),
        "out_FRD": nearest.mean(axis=0).sum(),
        "out_TLCC": np.abs(offsets).mean(),
        "out_TLCC_mp_p1": np.abs(offsets[:, 0]).mean(),
        "out_FRVar": torch.var(tensor, dim=2).mean().item(),
        "out_S_MSE_FRDiv": 0.0 if k == 1 else within.sum().item() / (n * k * (k - 1) * cells),
        "out_FRDvs": np.nan if n == 1 else across.sum().item() / (n * (n - 1) * k * cells),
    }
    inputs = {"pred": pred, "gt": target, "speaker": speaker, "neighbour": neighbours}
    pairs = {"ccc_pairs": ccc, "dtw_pairs": distances, "tlcc_offset_signed": offsets}
    return inputs | pairs | {name: np.array(value) for name, value in outputs.items()}


@pytest.mark.parametrize(
    ("n", "k", "frames", "kind"),
    [
        (3, 2, 60, "nothing"),
        (1, 1, 55, "nothing"),
        (4, 1, 50, "constant"),
        (2, 3, 101, "binary"),
        (2, 2, 30, "periodic"),
        (3, 2, 64, "starts late"),
    ],
)
def test_files_of_other_sizes_and_with_still_channels_are_met_as_well(n: int, k: int, frames: int, kind: str) -> None:
    with warnings.catch_warnings(action="ignore"), np.errstate(all="ignore"):
        content = made_plainly(n + k, n, k, frames, kind)
    assert check(content) > 0


def test_a_file_that_disagrees_anywhere_is_told() -> None:
    content = made_plainly(2, 2, 1, 40, "nothing")
    changes = {"out_FRC": 1e-4, "ccc_pairs": 1e-5, "dtw_pairs": 1e-7, "tlcc_offset_signed": 1, "out_FRDvs": 1e-4}
    for name, by in changes.items():
        with pytest.raises(AssertionError):
            check(content | {name: content[name] + by})
