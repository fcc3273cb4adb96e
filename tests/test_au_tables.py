"""Action-unit tables are read by the names of their columns and meet the 30 Hz grid by time."""

from pathlib import Path

import numpy as np
import pytest

from dyad.action_units import SEED17
from dyad.prepare.au_table import AUTable, holds_units, hysteresis, read_table
from dyad.prepare.timing import on_grid


def table(folder: Path, text: str, *, video_fps: float | None = None) -> AUTable:
    path = folder / "listener.csv"
    path.write_text(text, encoding="utf8")
    return read_table(path, SEED17.units, video_fps=video_fps)


def rows(header: str, lines: list[str]) -> str:
    return "\n".join([header, *lines]) + "\n"


def grid(read: AUTable, n_frames: int) -> tuple[np.ndarray, np.ndarray]:
    return on_grid(read.times_s, read.prob, read.act, n_frames, row_s=read.row_s)


def test_openface_intensity_becomes_a_fifth_and_presence_the_activation(tmp_path: Path) -> None:
    text = rows("frame, timestamp, confidence, success, AU12_r, AU12_c", ["1,0.0,.98,1,2.5,1", "2,0.033,.98,1,5,0"])
    read = table(tmp_path, text)
    assert (read.dialect, read.units) == ("openface", ("AU12",))
    np.testing.assert_allclose(read.prob[:, 0], [0.5, 1.0])
    np.testing.assert_array_equal(read.act[:, 0], [1, 0])


def test_openface_without_presence_is_active_from_trace_intensity_on(tmp_path: Path) -> None:
    levels = [0.0, 0.9, 1.0, 0.85, 0.7, 0.9]
    read = table(tmp_path, rows("timestamp,AU01_r", [f"{i / 30:.3f},{v}" for i, v in enumerate(levels)]))
    np.testing.assert_array_equal(read.act[:, 0], [0, 0, 1, 1, 0, 0])


def test_pyfeat_probability_is_taken_as_it_is_and_timed_by_the_video(tmp_path: Path) -> None:
    read = table(tmp_path, rows("frame,AU01,AU43", ["0,0.2,0", "2,0.6,0", "4,0.4,0"]), video_fps=25.0)
    assert (read.dialect, read.units, read.unused) == ("py-feat", ("AU1",), ("AU43",))
    np.testing.assert_allclose(read.times_s, [0, 0.08, 0.16])
    np.testing.assert_array_equal(read.act[:, 0], [0, 1, 0])
    assert read.end_s == pytest.approx(0.24)


@pytest.mark.parametrize(
    "style", ["AU{}_prob,AU{}_act", "prob_AU{},act_AU{}", "au{}_prob,au{}_act", "au_prob_AU{},au_act_AU{}"]
)
def test_the_products_own_columns_need_no_time_at_thirty_frames(tmp_path: Path, style: str) -> None:
    header = ",".join([style.format(9, 9), style.format(18, 18)])
    read = table(tmp_path, rows(header, ["0.25,1,0.5,0"] * 60))
    assert (read.dialect, read.units) == ("rapport", ("AU9", "AU18"))
    assert read.end_s == pytest.approx(2.0)
    prob, act = grid(read, 60)
    assert np.allclose(prob, [0.25, 0.5])
    assert np.allclose(act, [1, 0])


def test_columns_are_found_in_any_order_and_with_any_delimiter(tmp_path: Path) -> None:
    read = table(tmp_path, "\ufeffAU26_act;AU1_prob;AU1_act;AU26_prob\n1;0.1;0;0.9\n")
    assert read.units == ("AU1", "AU26")
    np.testing.assert_allclose(read.prob, [[0.1, 0.9]])
    np.testing.assert_allclose(read.act, [[0, 1]])


def test_a_unit_with_an_activation_alone_has_a_masked_probability(tmp_path: Path) -> None:
    read = table(tmp_path, rows("timestamp,AU01_c,AU12_r", ["0.0,1,2", "0.033,0,2"]))
    assert np.isnan(read.prob[:, 0]).all()
    np.testing.assert_array_equal(read.act[:, 0], [1, 0])


def test_rows_without_a_face_are_masked_even_when_their_cells_are_empty(tmp_path: Path) -> None:
    text = rows("timestamp,success,confidence,AU12_r", ["0,1,.9,1", "0.033,0,0,nan", "0.067,1,.2,3", "0.1,1,.9,2"])
    read = table(tmp_path, text)
    assert read.masked_rows == 2
    np.testing.assert_array_equal(np.isnan(read.prob[:, 0]), [False, True, True, False])
    np.testing.assert_array_equal(np.isnan(read.act), np.isnan(read.prob))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("timestamp,AU99_r\n0,1\n", "column 'AU99_r' names AU99, which FACS does not have; rename or remove it"),
        ("timestamp,AU12_z\n0,1\n", "column 'AU12_z' has the unknown ending 'z'; known: AU01_r"),
        ("timestamp,AU12_r\n0,1\n0.033,nan\n", "column 'AU12_r', row 2: nan is not a number"),
        ("timestamp,AU12_r\n0,1\n0.033,\n", "column 'AU12_r', row 2: an empty cell is not a number"),
        ("timestamp,AU12_r\n0,5.5\n", "column 'AU12_r', row 1: 5.5 where 0 to 5 is wanted"),
        ("timestamp,AU12\n0,1.5\n", "column 'AU12', row 1: 1.5 where 0 to 1 is wanted"),
        ("timestamp,AU12_c\n0,0.5\n", "column 'AU12_c', row 1: 0.5 where 0 or 1 is wanted"),
        ("timestamp,AU12_r,AU12\n0,1,1\n", "mixes the styles of 'AU12_r' and 'AU12'"),
        ("timestamp,AU12_r,AU012_r\n0,1,1\n", "columns 'AU12_r' and 'AU012_r' both give AU12"),
        ("timestamp,smile\n0,1\n", "no column of an action unit"),
        ("timestamp,AU45_r\n0,1\n", "holds none of the wanted units"),
        ("timestamp,AU12_r\n", "has a header but no row"),
        ("", "is empty"),
        ("timestamp,AU12_r\n0,1\n0.03\n", "row 2 has 1 cells, the header 2; the file is cut off"),
        ("timestamp,AU12_r\n0.1,1\n0.1,1\n", "column 'timestamp', row 2: 0.1 follows 0.1; time must increase"),
        ("clip,frame,AU12\n1,0,1\n2,0,1\n", "column 'clip' holds 2 clips; split it into one table for each clip"),
        ("face_id,timestamp,AU12_r\n0,0,1\n1,0,1\n", "column 'face_id' holds 2 faces"),
        ("frame,AU12\n0,1\n1,1\n", "no column 'timestamp', and no listener video to time its frames by"),
    ],
)
def test_a_faulty_table_is_refused_by_file_column_and_row(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(ValueError, match="listener") as refused:
        table(tmp_path, text)
    assert str(refused.value).startswith(f"{tmp_path / 'listener.csv'}: ")
    assert said in str(refused.value)


def test_a_table_that_is_no_text_is_refused_by_name(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_bytes(b"\xff\xfe\x00\x81")
    with pytest.raises(ValueError, match=r"a\.csv: not a readable text table"):
        read_table(tmp_path / "a.csv", SEED17.units)


def test_thirty_frames_a_second_map_one_to_one_despite_rounded_stamps(tmp_path: Path) -> None:
    values = np.random.default_rng(0).random(200).round(4)
    lines = [f"{i + 1},{i / 30:.3f},{5 * v},{i % 2}" for i, v in enumerate(values)]
    read = table(tmp_path, rows("frame,timestamp,AU12_r,AU12_c", lines))
    prob, act = grid(read, 200)
    np.testing.assert_allclose(prob[:, 0], values, atol=1e-6)
    np.testing.assert_array_equal(act[:, 0], np.arange(200) % 2)
    assert read.frame_rate_hz == 30.0


@pytest.mark.parametrize("rate", [12.5, 25.0, 58.06, 60.0])
def test_other_rates_follow_the_signal_in_time_and_hold_the_latest_activation(tmp_path: Path, rate: float) -> None:
    t = np.arange(round(6 * rate)) / rate
    signal = 0.5 + 0.4 * np.sin(2 * np.pi * 0.5 * t)
    lines = [f"{a:.4f},{p:.6f},{int(p > 0.5)}" for a, p in zip(t, signal, strict=True)]
    prob, act = grid(table(tmp_path, rows("timestamp,AU12_prob,AU12_act", lines)), 178)
    frames_s = np.arange(178) / 30
    np.testing.assert_allclose(prob[:, 0], 0.5 + 0.4 * np.sin(2 * np.pi * 0.5 * frames_s), atol=0.01)
    latest = [int(np.flatnonzero(t <= (f + 0.5) / 30 + 1e-3)[-1]) for f in range(178)]
    assert (act[:, 0] != (signal[latest] > 0.5)).sum() <= 2  # stamps rounded to a tenth of a millisecond


def test_frames_in_a_gap_or_beyond_the_table_are_masked(tmp_path: Path) -> None:
    stamps = [*(i / 30 for i in range(30)), *(2 + i / 30 for i in range(30))]
    prob, act = grid(table(tmp_path, rows("timestamp,AU12_r", [f"{s:.4f},2" for s in stamps])), 100)
    known = np.r_[np.arange(30), np.arange(60, 90)]
    np.testing.assert_array_equal(np.flatnonzero(~np.isnan(prob[:, 0])), known)
    np.testing.assert_array_equal(np.flatnonzero(~np.isnan(act[:, 0])), known)


def test_nothing_is_interpolated_across_a_masked_row() -> None:
    times_s = np.arange(5) / 15
    prob = np.array([[0.0], [0.1], [np.nan], [0.3], [0.4]])
    values, act = on_grid(times_s, prob, prob * 0, 9, row_s=1 / 15)
    np.testing.assert_array_equal(np.isnan(values[:, 0]), [False] * 3 + [True] * 3 + [False] * 3)
    np.testing.assert_array_equal(np.isnan(act[:, 0]), [False] * 4 + [True] * 2 + [False] * 3)


def test_hysteresis_forgets_its_state_where_the_face_was_lost() -> None:
    values = np.array([0.6, 0.45, np.nan, 0.45, 0.5, 0.41])
    np.testing.assert_array_equal(hysteresis(values, 0.5, 0.42), [1, 1, np.nan, 0, 1, 0])


def test_the_real_tables_of_three_tools_are_read_or_refused_by_name(real_data: Path) -> None:
    demo = read_table(real_data / "au" / "facsvatar_demo.csv", SEED17.units)
    assert (demo.dialect, demo.frame_rate_hz, demo.unused) == ("openface", 25.0, ("AU45",))
    assert set(SEED17.units) - set(demo.units) == {"AU18"}
    aligned = read_table(real_data / "listeners" / "opendbm_subj02_timepoint01.openface.csv", SEED17.units)
    assert aligned.end_s == pytest.approx(148 / 30)
    person = read_table(real_data / "dyads" / "facsvatar_2people" / "p0.openface.csv", SEED17.units)
    assert person.frame_rate_hz == pytest.approx(58.06, abs=0.1)
    with pytest.raises(ValueError, match="column 'clip' holds 20 clips"):
        read_table(real_data / "au" / "pyfeat_news_sample.csv", SEED17.units)
    assert not holds_units(real_data / "listeners" / "liveportrait_d3.blendshapes.csv")
