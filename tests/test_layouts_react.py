"""The REACT challenges' folders are read by name and by time, and what they do not hold is masked."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import react_trees as trees
from hypothesis import given
from hypothesis import strategies as st

from dyad.action_units import REACT15, REACT_ATTRIBUTES, SEED17
from dyad.layouts import attributes, challenge, react2024, react2025
from dyad.metrics import react as metrics
from dyad.metrics.checks import REACT_CHANNELS


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return trees.react2024(tmp_path_factory.mktemp("react") / "data")


@pytest.fixture(scope="module")
def mars(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return trees.react2025(tmp_path_factory.mktemp("mars") / "data")


def test_the_attributes_are_those_of_the_metrics_in_the_same_order() -> None:
    assert REACT_ATTRIBUTES == REACT_CHANNELS
    assert len(REACT_ATTRIBUTES) == 25


@pytest.mark.parametrize(
    ("written", "meant"),
    [("AU01", "AU1"), ("au12_c", "AU12"), ("AU24", "AU24"), ("Happiness", "happy"), ("Anger", "anger"),
     ("Valence", "valence"), ("Contempt", "contempt"), ("AU5", None), ("frame", None), ("confidence", None),
     ("angle_x", None), ("distance", None), ("surface", None), ("valid", None), ("AU12_r", None)],
)  # fmt: skip
def test_a_column_is_known_by_its_name_however_it_is_spelt(written: str, meant: str | None) -> None:
    assert attributes.attribute_of(written) == meant


@given(st.permutations(REACT_ATTRIBUTES), st.integers(2, 25))
def test_the_order_and_number_of_columns_never_matter(order: list[str], kept: int) -> None:
    names = order[:kept]
    rows = attributes.by_name(np.arange(25, dtype=np.float32)[None], REACT_ATTRIBUTES, names)
    found = attributes.by_name(rows, names, REACT_ATTRIBUTES)
    for d, name in enumerate(REACT_ATTRIBUTES):
        assert found[0, d] == d if name in names else np.isnan(found[0, d])


def test_a_table_with_its_columns_shuffled_reads_the_same_and_one_without_names_by_order(tmp_path: Path) -> None:
    values = trees.person_attributes("x", 40)
    order = np.random.default_rng(0).permutation(25)
    trees.write_table(tmp_path / "a.csv", values)
    trees.write_table(tmp_path / "b.csv", values[:, order], [REACT_ATTRIBUTES[d] for d in order])
    trees.write_table(tmp_path / "c.csv", values, [str(d) for d in range(25)])
    np.save(tmp_path / "d.npy", values)
    for name in ("a.csv", "b.csv", "c.csv", "d.npy"):
        np.testing.assert_allclose(attributes.read(tmp_path / name), values, atol=1e-6)


def test_what_is_no_attribute_is_refused_by_file_column_and_row(tmp_path: Path) -> None:
    values = trees.person_attributes("x", 5)
    trees.write_table(tmp_path / "odd.csv", values, [*REACT_ATTRIBUTES[:24], "AU5"])
    with pytest.raises(ValueError, match=r"odd.csv: column 'AU5' is none of AU1, "):
        attributes.read(tmp_path / "odd.csv")
    trees.write_table(tmp_path / "few.csv", values[:, :3], ["0", "1", "2"])
    with pytest.raises(ValueError, match=r"3 columns without a known name"):
        attributes.read(tmp_path / "few.csv")
    values[3, 7] = 5
    np.save(tmp_path / "high.npy", values)
    with pytest.raises(ValueError, match=r"high.npy: AU12 in row 4 is 5, wanted 0 to 1"):
        attributes.read(tmp_path / "high.npy")
    np.save(tmp_path / "thin.npy", values[:, :17])
    with pytest.raises(ValueError, match=r"has shape \(5, 17\), wanted \(frames, 25\)"):
        attributes.read(tmp_path / "thin.npy")
    with pytest.raises(ValueError, match=r"gone.csv: no such file; the download lost it"):
        attributes.read(tmp_path / "gone.csv")


def test_occurrences_are_held_and_ramps_interpolated_by_time_without_a_shift() -> None:
    values = trees.person_attributes("ramp", 751)
    values[:, 15] = np.arange(751) / 25 / 40
    mixed, held = attributes.on_grid(values, 25.0)
    assert len(mixed) == len(held) == 901
    np.testing.assert_allclose(mixed[:, 15], np.arange(901) / 30 / 40, atol=1e-6)
    latest = [(2 * t + 1) * 25 // 60 for t in range(901)]  # the last row k with k/25 <= (t + 0.5)/30
    np.testing.assert_array_equal(held, values[latest])
    step = np.repeat([[0.0], [1.0]], (250, 501), axis=0).astype(np.float32)
    assert int(attributes.on_grid(step, 25.0)[1][:, 0].argmax()) == 300  # ten seconds are ten seconds


def test_thirty_frames_a_second_stay_as_they_are() -> None:
    values = trees.person_attributes("mars", 123)
    for same in attributes.on_grid(values, 30.0):
        np.testing.assert_array_equal(same, values)


def test_probabilities_are_interpolated_and_become_active_by_hysteresis() -> None:
    values = np.zeros((50, 25), np.float32)
    values[:, 0] = np.interp(np.arange(50), [0, 25, 49], [0, 1, 0])
    prob, act = attributes.units(values, 25.0, ("AU1",))
    np.testing.assert_allclose(prob[10, 0], np.interp(10 / 30 * 25, [0, 25, 49], [0, 1, 0]), atol=1e-6)
    on = np.flatnonzero(act[:, 0])
    assert prob[on[0], 0] == pytest.approx(0.5, abs=0.05)
    assert prob[on[-1], 0] == pytest.approx(0.42, abs=0.05)


def test_a_session_has_fourteen_units_and_masks_the_three_that_the_challenge_lacks(tree: Path) -> None:
    sessions = list(react2024.sessions(tree, "val"))
    ids = ["NoXI_005_2016-03-18_Paris_Expert_video_1", "NoXI_005_2016-03-18_Paris_Novice_video_1"]
    assert [s.id for s in sessions][::2] == ids
    for s in sessions:
        unknown = np.isnan(s.prob)
        assert {u for u, gone in zip(SEED17.units, unknown.all(axis=0), strict=True) if gone} == {"AU5", "AU18", "AU20"}
        assert unknown.any(axis=0).sum() == 3
        assert (s.n_frames, s.fps) == (901, 30.0)
    listener = trees.person_attributes(trees.VAL[0][1], 751)
    np.testing.assert_array_equal(sessions[0].act[::6, SEED17.index("AU12")], listener[::5, REACT15.index("AU12")])


def test_au24_and_the_other_attributes_come_where_they_are_asked_for(tree: Path) -> None:
    (session,) = react2024.sessions(tree, "train", au_names=REACT15.units, mirrored=False)
    assert not np.isnan(session.prob).any()
    (item,) = react2024.items(tree, "train", mirrored=False)
    raw = attributes.read(item.listener.attributes)
    extra = attributes.named(raw, item.fps, ("happy", "AU24", "valence"))
    np.testing.assert_allclose(extra[::6, 2], raw[::5, 15], atol=1e-6)
    np.testing.assert_array_equal(extra[:, 1], session.act[:, REACT15.index("AU24")])
    with pytest.raises(ValueError, match="no attribute 'AU5'; the challenge has AU1"):
        attributes.named(raw, 25.0, ("AU5",))


def test_scored_arrays_are_listed_first_then_mirrored_in_the_challenges_own_units(tree: Path) -> None:
    scored = react2024.attributes(tree, "val")
    assert scored.listener.shape == scored.speaker.shape == (4, 750, 25)
    for n, (speaker, listener) in enumerate([*trees.VAL, *(pair[::-1] for pair in trees.VAL)]):
        np.testing.assert_allclose(scored.speaker[n], trees.person_attributes(speaker, 751)[:750], atol=1e-6)
        np.testing.assert_allclose(scored.listener[n], trees.person_attributes(listener, 751)[:750], atol=1e-6)


def test_a_seat_names_the_person_whoever_speaks(tree: Path, tmp_path: Path) -> None:
    copy = tmp_path / "data"
    shutil.copytree(tree, copy)
    chat = copy / "val" / "Emotion" / "NoXI" / "005_2016-03-18_Paris"
    (chat / "Expert_video").rename(chat / "P1")
    (chat / "Novice_video").rename(chat / "P2")
    for ours, theirs in zip(react2024.sessions(copy, "val"), react2024.sessions(tree, "val"), strict=True):
        np.testing.assert_array_equal(ours.act, theirs.act)


def test_coefficients_lose_the_mean_face(tree: Path, tmp_path: Path) -> None:
    item = react2024.items(tree, "train")[0]
    np.save(tmp_path / "mean_face.npy", np.arange(58, dtype=np.float32))
    plain, less = (react2024.coefficients(item, mean_face=m) for m in (None, tmp_path / "mean_face.npy"))
    assert plain.shape == (751, 58)
    np.testing.assert_array_equal(plain - less, np.tile(np.arange(58), (751, 1)))


def write_matrix(root: Path, clips: list[tuple[str, str, str]], seed: int = 0) -> np.ndarray:
    """A random matrix [2M, 2M] and the index of its M clips."""
    m = len(clips)
    whole = (np.random.default_rng(seed).random((2 * m, 2 * m)) < 0.4).astype(np.float64)
    np.fill_diagonal(whole, 1)
    np.save(root / react2024.MATRIX, whole)
    rows = ["site,chat_index,clip_index", *(",".join(c) for c in clips)]
    (root / react2024.INDEX).write_text("\n".join(rows) + "\n", encoding="utf8")
    return whole


CLIPS = [
    ("RECOLA", "group-1", "2"),
    ("UDIVA", "005013_talk", "7"),
    ("NoXI", "005_2016-03-18_Paris", "10"),
    ("NoXI", "010_2016-03-25_Paris", "1"),
    ("NoXI", "005_2016-03-18_Paris", "1"),
]


def test_the_matrix_is_cut_into_listed_and_mirrored_quadrants(tmp_path: Path) -> None:
    pairs = [*trees.VAL, ("UDIVA/talk/005013/FC1/7", "UDIVA/talk/005013/FC2/7")]
    trees.write_lists(tmp_path, {"val": pairs})
    whole = write_matrix(tmp_path, CLIPS)
    at, n, m = [4, 0, 1], 3, len(CLIPS)
    matrix = react2024.neighbours(tmp_path, "val")
    assert matrix.shape == (2 * n, 2 * n)
    for i in range(n):
        for j in range(n):
            assert matrix[i, j] == whole[at[i], at[j]]
            assert matrix[i, j + n] == whole[at[i], at[j] + m]
            assert matrix[i + n, j] == whole[at[i] + m, at[j]]
            assert matrix[i + n, j + n] == whole[at[i] + m, at[j] + m]
    np.testing.assert_array_equal(react2024.neighbours(tmp_path, "val", mirrored=False), matrix[:n, :n])
    np.save(tmp_path / "neighbour_emotion_val.npy", matrix.astype(float))
    (tmp_path / react2024.MATRIX).unlink()
    np.testing.assert_array_equal(react2024.neighbours(tmp_path, "val"), matrix)


def test_a_matrix_that_does_not_fit_or_is_not_there_says_what_to_fetch(tmp_path: Path) -> None:
    trees.write_lists(tmp_path, {"val": trees.VAL})
    with pytest.raises(ValueError, match="ask the organisers for the matrix"):
        react2024.neighbours(tmp_path, "val")
    write_matrix(tmp_path, CLIPS[:3])
    with pytest.raises(ValueError, match=r"lacks NoXI/005_2016-03-18_Paris/Expert_video/1 \(1 of 2 clips"):
        react2024.neighbours(tmp_path, "val")
    np.save(tmp_path / react2024.MATRIX, np.eye(4))
    with pytest.raises(ValueError, match=r"has shape \(4, 4\), but data_indices.csv lists 3 clips"):
        react2024.neighbours(tmp_path, "val")
    write_matrix(tmp_path, [*CLIPS, CLIPS[0]])
    with pytest.raises(ValueError, match="row 6 lists RECOLA/group-1/2 a second time"):
        react2024.neighbours(tmp_path, "val")


def test_ground_truth_scores_perfectly_against_its_own_matrix(tree: Path, tmp_path: Path) -> None:
    copy = tmp_path / "data"
    shutil.copytree(tree, copy)
    write_matrix(copy, CLIPS)
    scored = react2024.attributes(copy, "val", frames=60)
    assert metrics.frdist(scored.listener[:, None], scored.listener, react2024.neighbours(copy, "val")) == 0


@pytest.mark.parametrize(
    ("train", "val", "said"),
    [
        ("UDIVA/talk/013041/FC{}/16", "UDIVA/animal/005013/FC{}/1", "subject UDIVA 013 is in both train"),
        ("RECOLA/group-1/P2{}/1", "RECOLA/group-9/P2{}/1", "subject RECOLA P21 is in both"),
        ("NoXI/005_Paris/P{}/1", "NoXI/005_Paris/P{}/2", "subject NoXI 005_Paris P1 is in both"),
    ],
)
def test_a_person_in_two_splits_is_named(tmp_path: Path, train: str, val: str, said: str) -> None:
    lists = {s: [(p.format(1), p.format(2))] for s, p in (("train", train), ("val", val))}
    trees.write_lists(tmp_path, lists)
    with pytest.raises(ValueError, match=said):
        react2024.items(tmp_path, "val")
    assert len(react2024.items(tmp_path, "val", allow_shared_subjects=True)) == 2


def test_a_missing_list_names_those_that_are_there(tree: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"no test.csv in it; there is train.csv, val.csv"):
        react2024.items(tree, "test")
    with pytest.raises(ValueError, match=r"no train.csv, val.csv or test.csv"):
        react2024.items(tmp_path, "train")
    assert len(react2024.items(tree.parent, "val")) == 4  # the folder above data/ will do


def test_mars_pairs_meet_by_name_across_roles_and_keep_their_lengths(mars: Path) -> None:
    items = react2025.items(mars, "val")
    assert len(items) == 6
    lengths = [80, 100, 60] * 2
    for item, frames, (listener, speaker) in zip(items, lengths, challenge.sequences(items), strict=True):
        assert len(listener) == len(speaker) == frames
        assert item.speaker.clip.split("/")[1:] == item.listener.clip.split("/")[1:]
        assert item.speaker.clip.split("/")[0] != item.listener.clip.split("/")[0]
        np.testing.assert_allclose(listener, trees.person_attributes(item.listener.clip, frames), atol=1e-6)
    assert [s.n_frames for s in react2025.sessions(mars, "val")] == lengths
    assert react2025.attributes(mars, "val", frames=60).listener.shape == (6, 60, 25)
    with pytest.raises(ValueError, match="80 frames, but 750 are to be scored"):
        react2025.attributes(mars, "val")


def test_all_who_heard_a_topic_in_the_same_role_are_appropriate(mars: Path) -> None:
    items, matrix = react2025.items(mars, "val"), react2025.neighbours(mars, "val")
    for i, one in enumerate(items):
        for j, other in enumerate(items):
            same = one.listener.clip.split("/")[:2] == other.listener.clip.split("/")[:2]
            assert matrix[i, j] == same
    assert matrix.sum(axis=1).tolist() == [2, 2, 1] * 2


def test_a_draw_of_appropriate_reactions_is_the_same_in_every_run(mars: Path) -> None:
    matrix = react2025.neighbours(mars, "val")
    drawn = react2025.drawn(matrix, seed=3)
    np.testing.assert_array_equal(drawn, react2025.drawn(matrix, seed=3))
    assert drawn.shape == (6, 10)
    np.testing.assert_array_equal(drawn[:, 0], np.arange(6))
    assert all(matrix[i, j] == 1 for i, row in enumerate(drawn) for j in row)
    wide = react2025.drawn(np.ones((40, 40), np.uint8), seed=1)
    assert all(len(set(row)) == 10 for row in wide.tolist())


def test_a_mars_recording_in_two_splits_is_named(mars: Path, tmp_path: Path) -> None:
    copy = tmp_path / "data"
    shutil.copytree(mars, copy)
    for kind in ("facial-attributes",):
        source = copy / "train" / kind / "speaker" / "session0" / "Camera-2024-06-21-103121-103102.npy"
        shutil.copy(source, copy / "val" / kind / "speaker" / "session0")
    with pytest.raises(ValueError, match="Camera-2024-06-21-103121-103102 is in both train"):
        react2025.items(copy, "val")
    with pytest.raises(ValueError, match="no test in it; there is train, val"):
        react2025.items(mars, "test")


def test_a_table_without_a_header_is_refused_and_one_that_counts_from_one_is_in_the_challenges_order(
    tmp_path: Path,
) -> None:
    values = trees.person_attributes("x", 40)
    trees.write_table(tmp_path / "one.csv", values, [str(d) for d in range(1, 26)])
    np.testing.assert_allclose(attributes.read(tmp_path / "one.csv"), values, atol=1e-6)
    trees.write_table(tmp_path / "bare.csv", values[1:], [str(v) for v in values[0]])
    with pytest.raises(ValueError, match=r"bare.csv: has no header row, it begins with .*AU1, AU2, AU4, …, contempt"):
        attributes.read(tmp_path / "bare.csv")
    trees.write_table(tmp_path / "named.csv", values, [f"feature {d}" for d in range(25)])
    np.testing.assert_allclose(attributes.read(tmp_path / "named.csv"), values, atol=1e-6)


def test_columns_that_share_a_name_are_never_read_as_one_another(tmp_path: Path) -> None:
    values = trees.person_attributes("x", 40)
    trees.write_table(tmp_path / "same.csv", values, ["x"] * 25)
    with pytest.raises(
        ValueError, match=r"25 columns without a known name \(x, x, x, …\), .* each by a name of its own"
    ):
        attributes.read(tmp_path / "same.csv")
    trees.write_table(tmp_path / "twice.csv", values, [*REACT_ATTRIBUTES[:24], "AU01"])
    with pytest.raises(ValueError, match="columns 'AU1' and 'AU01' both give AU1"):
        attributes.read(tmp_path / "twice.csv")


def test_a_clip_of_other_frames_than_the_layout_says_is_refused_by_file(tree: Path, tmp_path: Path) -> None:
    copy = tmp_path / "data"
    shutil.copytree(tree, copy)
    item = react2024.items(copy, "train")[0]
    whole = attributes.read(item.listener.attributes)
    trees.write_table(item.listener.attributes, whole[:699])
    for read in (react2024.sessions, react2024.attributes):
        with pytest.raises(ValueError, match="699 frames, but a clip has 750 or 751; the file is cut off"):
            list(read(copy, "train"))  # type: ignore[call-overload]
    with pytest.raises(ValueError, match=r"Novice_video/1.csv: 699 frames"):
        list(challenge.sequences([item]))
    trees.write_table(item.listener.attributes, whole[:750])
    assert next(iter(react2024.sessions(copy, "train"))).n_frames == 900
    np.save(item.listener.coefficients, np.zeros((700, 1, 58), np.float32))
    with pytest.raises(ValueError, match=r"Novice_video/1.npy: 700 frames, but a clip has 750 or 751"):
        react2024.coefficients(item)


def test_coefficients_that_are_lost_are_refused_by_file(tree: Path, tmp_path: Path) -> None:
    copy = tmp_path / "data"
    shutil.copytree(tree, copy)
    item = react2024.items(copy, "train")[0]
    path = item.listener.coefficients
    values = np.load(path)
    values[7] = np.nan
    np.save(path, values)
    assert np.isnan(react2024.coefficients(item)).all(axis=1).sum() == 1
    np.save(path, np.full_like(values, np.nan))
    with pytest.raises(ValueError, match=r"1.npy: has no row without NaN"):
        react2024.coefficients(item)
    path.write_bytes(b"junk")
    with pytest.raises(ValueError, match=r"1.npy: not a readable array"):
        react2024.coefficients(item)
    np.save(path, np.where(np.isnan(values), 0, values))
    with pytest.raises(ValueError, match="has 751 rows, wanted the one of the mean face"):
        react2024.coefficients(item, mean_face=path)


def test_a_row_without_a_face_is_masked_in_a_session_and_refused_by_name_where_it_is_scored(
    tree: Path, tmp_path: Path
) -> None:
    copy = tmp_path / "data"
    shutil.copytree(tree, copy)
    item = react2024.items(copy, "train")[0]
    values = attributes.read(item.listener.attributes)
    values[8] = np.nan
    trees.write_table(item.listener.attributes, values)
    session = challenge.to_session(item)
    assert np.isnan(session.act[:, 0]).any()
    with pytest.raises(ValueError, match=r"attributes of .*Novice_video/1.csv: AU1 is nan at frame 8"):
        react2024.attributes(copy, "train")
    with pytest.raises(ValueError, match="leave the session out"):
        list(challenge.sequences([item]))


def test_two_people_of_one_clip_are_cut_to_the_shorter_within_a_tenth_of_a_second(mars: Path, tmp_path: Path) -> None:
    copy = tmp_path / "data"
    shutil.copytree(mars, copy)
    item = react2025.items(copy, "val")[0]
    values = np.load(item.speaker.attributes)
    np.save(item.speaker.attributes, values[:-3])
    listener, speaker = next(challenge.sequences([item]))
    assert len(listener) == len(speaker) == len(values) - 3
    np.save(item.speaker.attributes, values[:-4])
    with pytest.raises(ValueError, match=r"80 frames, but .* has 76; the two are of one clip"):
        next(challenge.sequences([item]))
