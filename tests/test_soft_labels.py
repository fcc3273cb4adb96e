"""The hand-over stores: whole files only, random windows, and every mismatch or damage by name."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from dyad.action_units import REACT15, SEED17
from dyad.predictions import PredictionStore
from dyad.soft_labels import SoftLabelStore


def create(root: Path, **changes: Any) -> SoftLabelStore:
    return SoftLabelStore.create(root, **{"au_names": SEED17.units, "teacher_hash": "t1", "run": {}, **changes})


def labels(frames: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    return (
        rng.random((frames, 17), dtype=np.float32),
        rng.normal(size=(frames, 17)).astype(np.float32),
        rng.random((frames, 17), dtype=np.float32) / 5,
    )


def test_any_window_of_a_session_equals_that_stretch_of_the_whole(tmp_path: Path) -> None:
    store, written = create(tmp_path), labels(200)
    store.write("s01", *written)
    rng = np.random.default_rng(1)
    for start, stop in [(0, None), (0, 0), (199, 200), *np.sort(rng.integers(0, 201, (20, 2))).tolist()]:
        got = store.read("s01", start, stop)
        for part, whole in zip((got.prob, got.act_logit, got.uncertainty), written, strict=True):
            np.testing.assert_array_equal(part, whole[start:stop])


def test_an_interrupted_and_resumed_run_gives_the_same_bytes(tmp_path: Path) -> None:
    for name in ("straight", "resumed"):
        create(tmp_path / name).write("s01", *labels(30, 1))
    (tmp_path / "resumed" / "s02.safetensors.part").write_bytes(b"half")
    for name in ("straight", "resumed"):
        create(tmp_path / name).write("s02", *labels(40, 2))
    first, second = ({p.name: p.read_bytes() for p in (tmp_path / n).iterdir()} for n in ("straight", "resumed"))
    assert first == second


def test_a_half_written_file_is_no_session_of_the_store(tmp_path: Path) -> None:
    store = create(tmp_path)
    (tmp_path / "s01.safetensors.part").write_bytes(b"half")
    assert store.ids() == []
    assert "s01" not in store


def test_another_unit_set_is_refused_by_the_units_that_differ(tmp_path: Path) -> None:
    create(tmp_path)
    assert SoftLabelStore.open(tmp_path, au_names=SEED17.units).au_names == SEED17.units
    with pytest.raises(ValueError, match="AU18, AU20, AU24, AU5"):
        SoftLabelStore.open(tmp_path, au_names=REACT15.units)
    with pytest.raises(ValueError, match="the order"):
        SoftLabelStore.open(tmp_path, au_names=SEED17.units[::-1])


def test_another_rate_is_refused_by_both_numbers(tmp_path: Path) -> None:
    create(tmp_path, fps=25)
    with pytest.raises(ValueError, match="made at 25 frames per second, wanted 30"):
        SoftLabelStore.open(tmp_path)


def test_going_on_with_another_teacher_is_refused_but_the_same_goes_on(tmp_path: Path) -> None:
    create(tmp_path).write("s01", *labels(10))
    assert create(tmp_path, run={"time": "later"}).ids() == ["s01"]
    with pytest.raises(ValueError, match="begun with teacher = 't1', but this run has 't2'"):
        create(tmp_path, teacher_hash="t2")


def test_one_kind_of_store_is_not_taken_for_another(tmp_path: Path) -> None:
    create(tmp_path)
    with pytest.raises(ValueError, match="holds 'soft-labels', wanted 'predictions'"):
        PredictionStore.open(tmp_path, au_names=SEED17.units)
    with pytest.raises(ValueError, match=r"store\.json is missing"):
        SoftLabelStore.open(tmp_path / "nowhere")


@pytest.mark.parametrize(
    ("at", "value", "said"),
    [(0, 1.5, r"prob outside \[0, 1\]"), (0, np.nan, "prob holds NaN"), (1, np.inf, "act_logit holds NaN or infinity")],
)
def test_values_that_mean_nothing_are_refused_before_writing(tmp_path: Path, at: int, value: float, said: str) -> None:
    store, written = create(tmp_path), labels(10)
    written[at][3, 3] = value
    with pytest.raises(ValueError, match=f"session s01: {said}"):
        store.write("s01", *written)
    assert store.ids() == []


def test_a_tensor_of_another_length_is_refused_by_name(tmp_path: Path) -> None:
    prob, act_logit, uncertainty = labels(10)
    with pytest.raises(ValueError, match=r"act_logit has shape \(9, 17\), wanted \(10, 17\)"):
        create(tmp_path).write("s01", prob, act_logit[:9], uncertainty)


@pytest.mark.parametrize("name", ["", "../s01", "a/b", ".hidden"])
def test_a_session_id_cannot_leave_the_folder(tmp_path: Path, name: str) -> None:
    with pytest.raises(ValueError, match="cannot name a file"):
        create(tmp_path).write(name, *labels(2))


def damage(root: Path) -> None:
    """Five broken shards, each in its own way, and a good one."""
    prob, act_logit, uncertainty = labels(20)
    whole = (root / "good.safetensors").read_bytes()
    (root / "truncated.safetensors").write_bytes(whole[: len(whole) // 2])
    (root / "empty.safetensors").touch()
    not_a_number = prob.copy()
    not_a_number[2, 3] = np.nan
    shards = {
        "nan": {"prob": not_a_number, "act_logit": act_logit, "uncertainty": uncertainty},
        "lacking": {"prob": prob, "act_logit": act_logit},
        "narrow": {"prob": prob[:, :3].copy(), "act_logit": act_logit, "uncertainty": uncertainty},
        "uneven": {"prob": prob, "act_logit": act_logit[:7].copy(), "uncertainty": uncertainty},
    }
    for name, tensors in shards.items():
        save_file(tensors, root / f"{name}.safetensors")


def test_every_damaged_shard_is_named_and_the_others_are_unaffected(tmp_path: Path) -> None:
    store = create(tmp_path)
    store.write("good", *labels(20))
    damage(tmp_path)
    reasons = dict(store.broken())
    assert sorted(reasons) == ["empty", "lacking", "nan", "narrow", "truncated", "uneven"]
    assert "damaged" in reasons["truncated"]
    assert "lacks uncertainty" in reasons["lacking"]
    assert "holds NaN" in reasons["nan"]
    assert "prob has shape (20, 3)" in reasons["narrow"]
    assert "(7, 17)" in reasons["uneven"]
    with pytest.raises(ValueError, match=r"truncated\.safetensors: damaged .* delete this file"):
        store.read("truncated")
    assert len(store.read("good").prob) == 20


def test_a_missing_session_is_refused_and_a_removed_one_is_gone(tmp_path: Path) -> None:
    store = create(tmp_path)
    store.write("s01", *labels(5))
    store.remove("s01")
    store.remove("s01")
    with pytest.raises(ValueError, match=r"s01\.safetensors: no such session in the store"):
        store.read("s01")


def test_predictions_keep_their_horizons_and_values(tmp_path: Path) -> None:
    prob = np.random.default_rng(0).random((12, 9, 17), dtype=np.float32)
    run: dict[str, Any] = {}
    store = PredictionStore.create(tmp_path, au_names=SEED17.units, horizons=range(9), source="e1", run=run)
    store.write("s01", prob, prob / 2)
    again = PredictionStore.open(tmp_path, au_names=SEED17.units)
    assert (again.horizons, again.ids()) == (tuple(range(9)), ["s01"])
    np.testing.assert_array_equal(again.read("s01").prob, prob)
    np.testing.assert_array_equal(again.read("s01").act_prob, prob / 2)
