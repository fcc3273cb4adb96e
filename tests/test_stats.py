"""`dyad.stats` counts what brute force counts, finds planted lags, and calls nothing real that is chance."""

import dataclasses
import itertools
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from distill.train import Config as TrainConfig
from dyad import config as configuration
from dyad import media
from dyad.action_units import SEED17
from dyad.layouts import processed
from dyad.session import Session
from dyad.stats import deals, lags, page, planted, rates, report, shape, survey, voice, weights
from dyad.stats.__main__ import main

UNITS = SEED17.units


def session(act: np.ndarray, prob: np.ndarray | None = None, name: str = "s", root: Path = Path()) -> Session:
    """A session of the given annotation [T, 17]."""
    n = len(act)
    return Session(
        id=name,
        speaker_video_path=root / "media" / f"{name}.mp4",
        speaker_audio_path=root / "media" / f"{name}.wav",
        listener_video_path=None,
        listener_audio_path=None,
        au_names=UNITS,
        prob=(act * 0.8 if prob is None else prob).astype(np.float32),
        act=act.astype(np.float32),
        fps=30.0,
        duration_s=n / 30,
        n_frames=n,
    )


def annotation(seed: int, frames: int = 200) -> np.ndarray:
    """Units that switch; AU18 was never annotated, AU12 not in the first frames, AU9 never moves."""
    rng = np.random.default_rng(seed)
    act = (np.cumsum(rng.random((frames, 17)) < 0.08, axis=0) % 2).astype(np.float64)
    act[:, UNITS.index("AU18")] = np.nan
    act[:13, UNITS.index("AU12")] = np.nan
    act[:, UNITS.index("AU9")] = 0
    return act


def brute_runs(column: list[float]) -> list[int]:
    lengths, current = [], 0
    for value in [*column, 0.0]:
        if value == 1:
            current += 1
        elif current:
            lengths.append(current)
            current = 0
    return lengths


def test_rates_and_durations_are_what_brute_force_counts() -> None:
    acts = [annotation(seed, 150 + 40 * seed) for seed in range(4)]
    found = rates.measure([session(a) for a in acts], UNITS)
    for a, unit in enumerate(UNITS):
        cells = [v for act in acts for v in act[:, a].tolist() if v == v]
        lengths = [n for act in acts for n in brute_runs(act[:, a].tolist())]
        if unit == "AU18":
            assert np.isnan(found.rate[a])
            assert found.sessions_known[a] == found.known[a] == 0
            continue
        assert found.rate[a] == pytest.approx(sum(cells) / len(cells))
        assert found.known[a] == pytest.approx(len(cells) / sum(len(act) for act in acts))
        assert found.events_per_minute[a] == pytest.approx(len(lengths) / (len(cells) / 1800))
        if unit == "AU9":
            assert np.isnan(found.duration_s[a])
            continue
        assert found.duration_s[a] == pytest.approx(np.median(lengths) / 30)
        assert found.strength[a] == pytest.approx(0.8, abs=1e-6)
        assert found.prob_mean[a] == pytest.approx(0.8 * sum(cells) / len(cells), abs=1e-6)
    assert found.unknown_units == ["AU18"]
    rows = [row for act in acts for row in act]
    assert found.still == pytest.approx(np.mean([not (row == 1).any() for row in rows]))
    assert found.active_at_once == pytest.approx(np.mean([(row == 1).sum() for row in rows]))


def test_togetherness_is_the_correlation_over_frames_where_both_are_known() -> None:
    act = annotation(5, 600)
    found = rates.measure([session(act[:250]), session(act[250:])], UNITS)
    for a in range(17):
        for b in range(17):
            x, y = act[:, a], act[:, b]
            both = ~np.isnan(x) & ~np.isnan(y)
            if not both.any() or x[both].std() == 0 or y[both].std() == 0:
                assert np.isnan(found.together[a, b])
                continue
            assert found.together[a, b] == pytest.approx(np.corrcoef(x[both], y[both])[0, 1])
            assert found.given[a, b] == pytest.approx(y[both & (x == 1)].mean())


@given(st.lists(st.sampled_from([0.0, 1.0, np.nan]), max_size=40))
def test_runs_end_where_the_annotation_does(column: list[float]) -> None:
    assert rates.runs(np.array(column)).tolist() == brute_runs([0.0 if v != v else v for v in column])


def test_the_shape_of_a_movement_is_the_mean_around_its_starts() -> None:
    act, prob = np.zeros((400, 17)), np.zeros((400, 17))
    for start in (10, 100, 250, 380):  # the first and last lack their surroundings
        act[start : start + 12, 0] = 1
        prob[start : start + 12, 0] = 0.9
    curves, counts = shape.around_starts([session(act, prob)], 17)
    assert counts[0] == 2
    assert np.flatnonzero(curves[0] > 0.5).tolist() == list(range(shape.BEFORE, shape.BEFORE + 12))
    assert np.isnan(curves[1]).all()


def movements(rng: np.random.Generator, frames: int, count: int) -> np.ndarray:
    """Smooth rises and falls at random times, [T]."""
    out = np.zeros(frames)
    for start in rng.integers(0, frames, count):
        t = np.arange(frames) - start
        out = np.maximum(out, np.clip(t / 6, 0, 1) * np.clip((40 - t) / 12, 0, 1))
    return out


def dyads(lag_frames: int | None, sessions: int = 16, seed: int = 0) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Two cues of speakers, two units of listeners: the first follows the first, or nothing does; noise and gaps."""
    rng = np.random.default_rng(seed)
    cues, units = [], []
    for _ in range(sessions):
        n = int(rng.integers(400, 700))
        cue, unit = np.stack([movements(rng, n, 8) for _ in range(4)], axis=1).reshape(n, 2, 2).transpose(1, 0, 2)
        if lag_frames is not None:
            followed = np.roll(cue[:, 0], lag_frames)
            followed[:lag_frames] = 0
            unit[:, 0] = np.maximum(0.7 * followed, 0.5 * unit[:, 0])
        unit = unit + rng.normal(0, 0.03, unit.shape)
        unit[50:70, 0] = np.nan
        cues.append(lags.rises(cue))
        units.append(lags.rises(unit))
    return cues, units


@pytest.mark.parametrize("planted", [0, 5, 18, 45])
def test_a_planted_lag_is_found_within_a_frame_and_nothing_else_is(planted: int) -> None:
    found = lags.measure(*dyads(planted), ["a", "b"], ["AU1", "AU2"], surrogates=60)
    (only,) = found.real()
    assert (only.cue, only.unit) == ("a", "AU1")
    assert only.lag_ms == pytest.approx(planted * 1000 / 30, abs=1000 / 30)
    assert only.low_ms - 34 <= planted * 1000 / 30 <= only.high_ms + 34
    assert only.correlation > 0.3
    assert len(found.found) == 4


def test_listeners_who_follow_nobody_have_no_real_lag_in_most_datasets() -> None:
    false = [
        len(lags.measure(*dyads(None, 10, seed), ["a", "b"], ["AU1", "AU2"], surrogates=39).real())
        for seed in range(12)
    ]
    assert sum(n > 0 for n in false) <= 3  # 5 % of datasets are expected to have one; more than 3 of 12: p < 0.003


def test_the_pooled_correlation_is_pearsons_when_nothing_is_unknown() -> None:
    rng = np.random.default_rng(4)
    kernel = np.hanning(31)
    smooth = [np.convolve(rng.normal(size=900), kernel, "same") for _ in range(8)]
    cues = [x[:, None] for x in smooth[:4]]
    units = [(0.5 * np.roll(x, 9) + y)[:, None] for x, y in zip(smooth[:4], smooth[4:], strict=True)]
    found = lags.measure(cues, units, ["a"], ["AU1"], surrogates=20, max_lag_s=1)
    x, y = (np.concatenate([s[:, 0] - s[:, 0].mean() for s in side]) for side in (cues, units))
    at = int(np.flatnonzero(found.lags_frames == 0)[0])
    assert found.curves[0, 0, at] == pytest.approx(np.corrcoef(x, y)[0, 1], abs=5e-3)


@settings(max_examples=25)
@given(st.integers(2, 30), st.integers(0, 2**32 - 1))
def test_a_deal_gives_nobody_their_own_listener(n: int, seed: int) -> None:
    order = deals.dealt(n, np.random.default_rng(seed))
    assert sorted(order.tolist()) == list(range(n))
    assert not (order == np.arange(n)).any()


@settings(max_examples=25)
@given(st.integers(2, 12), st.integers(0, 2**32 - 1))
def test_both_directions_of_a_clip_are_never_dealt_to_one_another(clips: int, seed: int) -> None:
    names = [f"clip {i}" for i in range(clips)] * 2
    order = deals.dealt(2 * clips, np.random.default_rng(seed), names)
    assert sorted(order.tolist()) == list(range(2 * clips))
    assert all(names[i] != names[j] for i, j in enumerate(order))


@pytest.mark.parametrize("clips", [None, ["a", "a", "b", "b", "c", "c", "d", "d"]])
@pytest.mark.parametrize("n", [4, 5, 6, 8])
def test_few_sessions_are_dealt_in_all_their_orders_and_in_none_twice(n: int, clips: list[str] | None) -> None:
    same = range(n) if clips is None else clips[:n]
    apart = 2 * max(list(same).count(s) for s in same) <= n
    wanted = {
        order
        for order in itertools.permutations(range(n))
        if order != tuple(range(n)) and all(i == j or not apart or same[i] != same[j] for i, j in enumerate(order))
    }
    got = deals.deals(n, 10**6, np.random.default_rng(0), None if clips is None else clips[:n])
    assert len(got) == len(wanted)
    assert {tuple(order.tolist()) for order in got} == wanted
    some = {tuple(order.tolist()) for order in deals.deals(n, 7, np.random.default_rng(0))}
    assert len(some) == 7


@pytest.mark.parametrize(
    ("n", "clips", "ways"), [(0, None, 0), (2, None, 1), (3, None, 5), (4, ["a", "a", "b", "b"], 8)]
)
def test_too_few_sessions_cannot_tell_a_lag_from_chance(n: int, clips: list[str] | None, ways: int) -> None:
    cues, units = dyads(5, n)
    with pytest.raises(
        ValueError, match=rf"too few sessions \({n}\) to tell from chance: .* in {ways} ways, and 19 are"
    ):
        lags.measure(cues, units, ["a", "b"], ["AU1", "AU2"], clips=clips)
    assert not deals.too_few(4)
    assert not deals.too_few(400)


@pytest.mark.parametrize("sessions", [4, 6])
def test_few_listeners_who_follow_nobody_have_a_real_lag_in_one_of_twenty_datasets(sessions: int) -> None:
    names = [str(d) for d in range(4)]
    false = 0
    for seed in range(60):
        rng = np.random.default_rng(seed)
        series = [[np.stack([movements(rng, 400, 6) for _ in names], axis=1) for _ in range(sessions)] for _ in "xy"]
        cues, units = ([lags.rises(s) for s in side] for side in series)
        false += bool(lags.measure(cues, units, names, names, surrogates=59, max_lag_s=1, seed=seed).real())
    assert false <= 8  # 3 are expected; more than 8 of 60: p < 0.005


def test_a_lag_of_every_listener_is_found_in_five_sessions() -> None:
    found = lags.measure(*dyads(12, 5), ["a", "b"], ["AU1", "AU2"])
    assert [(lag.cue, lag.unit) for lag in found.real()] == [("a", "AU1")]
    assert found.surrogates == 119


def test_the_voice_starts_and_ends_where_the_tone_does_and_short_gaps_do_not_count() -> None:
    sound = np.zeros(16000 * 6, np.float32)
    for start_s, end_s in ((1.0, 2.0), (2.1, 3.0), (4.0, 5.0)):
        t = np.arange(int(start_s * 16000), int(end_s * 16000))
        sound[t] = 0.3 * np.sin(t / 9)
    sound += np.random.default_rng(0).normal(0, 1e-3, len(sound)).astype(np.float32)
    _, starts, ends = voice.cues(sound, 180).T
    np.testing.assert_allclose(np.flatnonzero(starts), [30, 120], atol=1)
    np.testing.assert_allclose(np.flatnonzero(ends), [90, 150], atol=1)
    assert np.isnan(voice.cues(np.zeros(16000, np.float32), 30)).all()
    assert np.isnan(voice.cues(np.zeros(0, np.float32), 30)).all()


def test_weights_favour_rare_units_where_the_requirements_formula_would_reward_errors() -> None:
    rate = np.array([0.5, 0.1, 0.01, 0.0, np.nan])
    found = weights.suggest(rate, np.array([900.0, 200.0, 20.0, 0.0, 0.0]))
    assert (found.requirement[:4] < 0).all()
    for weight in (found.minus_log, found.offset_log, found.effective_number):
        assert np.isnan(weight[4])
        assert weight[:4].mean() == pytest.approx(1)
        assert (np.diff(weight[:4]) >= 0).all()
        assert weight[2] > 2 * weight[0]
    np.testing.assert_allclose(found.minus_log[:4] / found.minus_log[0], -np.log(rate[:4] + 1e-3) / -np.log(0.501))


def test_the_weights_said_to_be_the_commands_are_the_commands() -> None:
    import torch

    from distill import losses as distill_losses
    from teacher import losses as teacher_losses

    rate = np.array([0.5, 0.1, 0.01, 0.0])
    found, given = weights.suggest(rate, np.ones(4)), torch.from_numpy(rate)
    np.testing.assert_allclose(found.minus_log, distill_losses.frequency_weights(given).numpy())
    np.testing.assert_allclose(found.offset_log, teacher_losses.frequency_weights(given).numpy())


def test_the_strength_of_the_weights_grows_with_how_uneven_the_units_are() -> None:
    made = [weights.strength(np.array([0.3, low, 0.0, np.nan]), UNITS) for low in (0.29, 0.16, 0.1, 0.03, 0.003, 1e-5)]
    assert [s.stratify for s in made[:2]] == [s.weighted_regression for s in made[:2]] == [0, 0]
    assert made[0].why.startswith("not needed: AU1 is active 1.03 times as often as AU2")
    assert all(a.stratify < b.stratify for a, b in itertools.pairwise(made[1:5]))
    assert (made[-1].stratify, made[-1].weighted_regression) == (1.0, 0.2)
    assert made[3].imbalance == pytest.approx(10)
    assert weights.strength(np.array([0.0, np.nan]), UNITS).weighted_regression == 0


def surveyed(acts: list[np.ndarray], root: Path) -> survey.Survey:
    settings = survey.LagSettings(sound=False)
    return survey.take(root, [session(a, name=f"s{i}", root=root) for i, a in enumerate(acts)], UNITS, settings)


def test_a_rate_is_printed_on_its_own_side_of_a_groups_bound(tmp_path: Path) -> None:
    act = np.zeros((20_000, 17))
    act[:3999, 0] = act[:4000, 1] = act[:999, 2] = 1
    said = report.as_text(surveyed([act], tmp_path), "t")
    shown = [line.split("%")[0].split()[-1] for line in said.splitlines() if line[:3] in ("AU1", "AU2", "AU4")][:3]
    assert shown == ["19.99", "20.0", "4.995"]
    assert float(shown[0]) < 20 <= float(shown[1])
    assert float(shown[2]) < 5


def test_nothing_is_said_of_planted_pairs_that_there_are_not(tmp_path: Path) -> None:
    cues, units = dyads(9, 6)
    found = lags.measure(cues, units, ["AU1 rises", "AU2 rises"], ["AU1", "AU2"], surrogates=60)
    made = dataclasses.replace(surveyed([annotation(0)], tmp_path), lags=found)
    for truth, said in (
        ({("AU1", "AU1"): (300.0, 12)}, None),
        ({("AU2", "AU2"): (300.0, 99)}, "of 1 pairs that were planted 50 times or more, 0 are found"),
        ({("AU1", "AU1"): (300.0, 99)}, ", 1 are found, off by "),
    ):
        text = report.as_text(dataclasses.replace(made, planted=truth), "t")
        assert "nan" not in text
        assert ("times or more" in text) == (said is not None)
        assert said is None or said in text
    assert planted.check(found, {}).planted == 0


def test_every_lag_and_correlation_has_its_own_colour(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib.axes import Axes

    shown: list[dict] = []
    real = Axes.imshow
    monkeypatch.setattr(
        Axes, "imshow", lambda self, data, **k: (shown.append({"data": data} | k), real(self, data, **k))[1]
    )
    lag = lags.Lag("a", "AU1", -400.0, -450.0, -350.0, 0.5, 0.01, True)
    curves = np.zeros((2, 2, 121))
    both = (lag, dataclasses.replace(lag, unit="AU2", lag_ms=2100.0))
    found = lags.Lags(("a", "b"), ("AU1", "AU2"), np.arange(-30, 91), curves, both, 6, 60)
    page.render(dataclasses.replace(surveyed([annotation(1)], tmp_path), lags=found), "t", "text")
    assert len(shown) == 2
    for picture in shown:
        assert picture["vmin"] <= np.nanmin(picture["data"])
        assert picture["vmax"] >= np.nanmax(picture["data"])


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve listeners whose AU12 follows the speaker's by 15 frames and whose AU1 answers the end of speech by 12."""
    root = tmp_path_factory.mktemp("stats") / "dyads"
    rng = np.random.default_rng(2)
    (root / "media").mkdir(parents=True)
    (root / "speaker_au").mkdir()
    made = []
    for i in range(12):
        speaker, prob = np.zeros((600, 17), np.float32), np.full((600, 17), 0.05)
        speaker[:, 8] = movements(rng, 600, 6)
        prob[15:, 8] += 0.8 * speaker[:-15, 8]
        sound = np.zeros(320000, np.float32)
        for start in rng.integers(0, 500, 3):
            a, b = int(start) * 16000 // 30, int(start + 45) * 16000 // 30
            sound[a:b] = 0.3 * np.sin(np.arange(b - a) / 8)
            prob[:, 0] = np.maximum(prob[:, 0], 0.9 * np.clip((np.arange(600) - start - 57 + 3) / 6, 0, 1)
                                    * (np.arange(600) < start + 90))  # fmt: skip
        prob = np.clip(prob + rng.normal(0, 0.01, prob.shape), 0, 1)
        prob[:, UNITS.index("AU18")] = np.nan
        act = np.where(np.isnan(prob), np.nan, prob > 0.5)
        made.append(session(act, prob, f"s{i:02d}", root))
        media.write_wav(root / "media" / f"s{i:02d}.wav", sound)
        np.savez(root / "speaker_au" / f"s{i:02d}.npz", au=speaker, names=np.array(UNITS))
    processed.write(root, "train", made)
    processed.write(root, "val", [], empty_units=UNITS)
    return root


def test_the_command_prints_what_a_newcomer_needs_and_writes_three_files(
    dataset: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["--dataset", str(dataset), "--out", str(tmp_path), "--surrogates", "60"]) == 0
    said = capsys.readouterr().out
    assert "AU18  lip pucker            not annotated in any session" in said
    content = json.loads((tmp_path / "stats.json").read_text(encoding="utf8"))
    real = {(p["cue"], p["unit"]): p["lag_ms"] for p in content["lags"]["pairs"] if p["real"]}
    assert real["AU12 rises", "AU12"] == pytest.approx(500, abs=34)
    assert real["voice ends", "AU1"] == pytest.approx(400, abs=67)
    assert content["unannotated_units"] == ["AU18"]
    assert (content["sessions"], content["run"]["command"]) == (12, "dyad.stats")
    page = (tmp_path / "stats.html").read_text(encoding="utf8")
    assert page.count("src='data:image/png;base64,") == 5
    assert "http" not in page.split("<h1>")[0]
    preset = configuration.read_yaml(tmp_path / "loss.yaml") | {"dataset": "d", "out": "o"}
    config = configuration.from_dict(TrainConfig, preset, where="loss.yaml")
    assert config.loss.weighted_regression == content["loss"]["weighted_regression"]
    assert config.stratify == content["loss"]["stratify"]
    assert content["loss"]["why"] in said


def test_the_same_seed_gives_the_same_figures(dataset: Path, tmp_path: Path) -> None:
    made = []
    for name in ("a", "b"):
        main(["--dataset", str(dataset), "--out", str(tmp_path / name), "--surrogates", "30", "--no-sound"])
        content = json.loads((tmp_path / name / "stats.json").read_text(encoding="utf8"))
        made.append({k: v for k, v in content.items() if k != "run"})
    assert made[0] == made[1]


def test_a_dataset_without_sessions_annotation_or_table_says_so(dataset: Path, tmp_path: Path) -> None:
    out = ["--out", str(tmp_path / "out")]
    with pytest.raises(ValueError, match="processed/val: holds no session"):
        main(["--dataset", str(dataset), "--split", "val", *out])
    with pytest.raises(ValueError, match=r"no dataset there; make one with python -m dyad\.prepare"):
        main(["--dataset", str(tmp_path), *out])
    with pytest.raises(ValueError, match="processed/train: no dataset there"):
        main(["--dataset", str(tmp_path), "--split", "all", *out])
    unknown = np.full((90, 17), np.nan)
    processed.write(tmp_path / "speakers", "train", [session(unknown, unknown, root=tmp_path / "speakers")])
    with pytest.raises(ValueError, match="none of 1 sessions has an annotated unit"):
        main(["--dataset", str(tmp_path / "speakers"), *out])
    assert not (tmp_path / "out").exists()


def test_speakers_of_whom_nothing_is_known_leave_the_lags_out_but_not_the_rest(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = tmp_path / "mute"
    processed.write(root, "train", [session(annotation(i), name=f"s{i}", root=root) for i in range(4)])
    assert main(["--dataset", str(root), "--out", str(tmp_path / "out")]) == 0
    said = capsys.readouterr().out
    assert "Listener after speaker: not measured, because neither the speakers' own units nor their sound" in said
    assert "s0: no sound: " in said


def test_neither_help_nor_a_run_imports_torch(dataset: Path, tmp_path: Path) -> None:
    code = (
        "import runpy, sys\n"
        "sys.argv = ['x', *{arguments!r}]\n"
        "try:\n    runpy.run_module('dyad.stats', run_name='__main__')\n"
        "except SystemExit as stop:\n    assert not stop.code, stop.code\n"
        "assert not {heavy!r} & set(sys.modules), sorted({heavy!r} & set(sys.modules))"
    )
    run = ["--dataset", str(dataset), "--out", str(tmp_path), "--surrogates", "19", "--no-sound"]
    for arguments, heavy in ((["--help"], {"torch", "datasets", "matplotlib", "av"}), (run, {"torch", "transformers"})):
        script = code.format(arguments=arguments, heavy=heavy)
        done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr


def test_sessions_of_few_long_recordings_are_dealt_apart_too() -> None:
    rng, clips = np.random.default_rng(0), [f"recording {i % 4}" for i in range(80)]
    for _ in range(20):
        order = deals.dealt(80, rng, clips)
        assert sorted(order) == list(range(80))
        assert all(clips[a] != clips[b] for a, b in enumerate(order))
