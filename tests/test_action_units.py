"""Action units are matched by name, never by position."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dyad.action_units import ARKIT, FACS_MEANING, REACT15, SEED17, by_name, positions, to_arkit


def test_the_products_set_holds_its_seventeen_units_in_order() -> None:
    numbers = [int(u.removeprefix("AU")) for u in SEED17.units]
    assert numbers == [1, 2, 4, 5, 6, 7, 9, 10, 12, 14, 15, 17, 18, 20, 23, 25, 26]


def test_the_challenge_set_has_fifteen_units_with_au24_and_without_au18() -> None:
    assert len(REACT15.units) == 15
    assert set(REACT15.units) - set(SEED17.units) == {"AU24"}
    assert set(SEED17.units) - set(REACT15.units) == {"AU5", "AU18", "AU20"}


@pytest.mark.parametrize("units", [SEED17.units, REACT15.units])
def test_every_unit_of_every_set_has_a_meaning_and_a_face_shape(units: tuple[str, ...]) -> None:
    assert not [u for u in units if u not in FACS_MEANING or not ARKIT.get(u)]


def test_an_unknown_unit_is_refused_with_the_nearest_known_one() -> None:
    with pytest.raises(ValueError, match=r"SEED17 has no AU24; did you mean AU\d+\? it holds AU1, AU2"):
        SEED17.index("AU24")


def test_an_unknown_set_is_refused_with_the_list_of_known_ones() -> None:
    assert by_name("REACT15") is REACT15
    with pytest.raises(ValueError, match="SEED17, REACT15"):
        by_name("SEED18")


@given(st.permutations(SEED17.units), st.integers(1, 17))
def test_columns_move_by_name_whatever_the_order_of_the_source(order: list[str], kept: int) -> None:
    source = order[:kept]
    values = np.array([[float(u.removeprefix("AU")) for u in source]])
    target = np.full((1, 17), np.nan)
    src, dst = positions(source, SEED17.units)
    target[:, dst] = values[:, src]
    for a, unit in enumerate(SEED17.units):
        assert (target[0, a] == float(unit.removeprefix("AU"))) if unit in source else np.isnan(target[0, a])


def test_a_face_shape_shared_by_two_units_takes_the_stronger_one() -> None:
    jaw = [to_arkit(au)["jawOpen"] for au in ({"AU25": 1.0}, {"AU26": 1.0}, {"AU25": 1.0, "AU26": 1.0})]
    assert jaw[2] == max(jaw[:2])


@given(st.dictionaries(st.sampled_from(SEED17.units), st.floats(0, 1)))
def test_face_shapes_never_leave_their_range(au: dict[str, float]) -> None:
    assert all(0 <= v <= 1 for v in to_arkit(au).values())
