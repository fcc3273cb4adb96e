"""Another machine's clock: never further off than half the shortest round trip, and followed where it drifts."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deploy.net.clock_offset import ClockOffset, RoundTrip


def exchange(asked_s: float, there_s: float, back_s: float, *, ahead_s: float, drift: float = 0.0) -> RoundTrip:
    """A question at `asked_s` (own clock) with so much delay each way, to a clock that is ahead and drifts."""

    def other(here_s: float) -> float:
        return here_s * (1 + drift) + ahead_s

    received_s = asked_s + there_s
    return RoundTrip(asked_s, other(received_s), other(received_s + 0.001), received_s + 0.001 + back_s)


delays = st.floats(1e-4, 0.3)


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(delays, delays), min_size=1, max_size=40), st.floats(-1e6, 1e6))
def test_the_error_is_within_bounds_that_no_single_round_trip_narrows(
    ways: list[tuple[float, float]], ahead_s: float
) -> None:
    clock = ClockOffset()
    for k, (there_s, back_s) in enumerate(ways):
        assert clock.add(exchange(0.1 * k, there_s, back_s, ahead_s=ahead_s))
    fastest = [min(way[k] for way in ways) for k in (0, 1)]
    assert clock.uncertainty_s == pytest.approx(sum(fastest) / 2, abs=1e-6)
    assert clock.uncertainty_s <= min(map(sum, ways)) / 2 + 1e-6
    assert clock.there_s(3.0) - (3.0 + ahead_s) == pytest.approx((fastest[0] - fastest[1]) / 2, abs=1e-6)


@pytest.mark.parametrize("drift", [-1e-4, 0.0, 2e-5, 1e-4])
@pytest.mark.parametrize("slowest_s", [0.0105, 0.1])
def test_a_drifting_clock_is_followed_through_jitter(drift: float, slowest_s: float) -> None:
    rng, clock, errors_s = np.random.default_rng(1), ClockOffset(), []
    for k in range(1200):
        there_s, back_s = rng.uniform(0.010, slowest_s, 2)
        clock.add(exchange(0.1 * k, there_s, back_s, ahead_s=77.0, drift=drift))
        errors_s.append(clock.there_s(0.1 * k) - (0.1 * k * (1 + drift) + 77.0))
    assert np.abs(errors_s[150:]).max() < 0.003


def test_an_exchange_is_bounded_by_its_own_delay_alone() -> None:
    trip = exchange(5.0, 0.02, 0.05, ahead_s=-3.0)
    assert trip.delay_s == pytest.approx(0.07)
    assert trip.most_s - trip.least_s == pytest.approx(trip.delay_s)
    assert trip.least_s <= -3.0 <= trip.most_s


def test_old_trips_are_forgotten_so_that_a_changed_route_counts() -> None:
    clock = ClockOffset()
    clock.add(exchange(0.0, 0.0001, 0.0001, ahead_s=0.0))
    clock.add(exchange(100.0, 0.02, 0.02, ahead_s=1.0))
    assert clock.there_s(100.0) == pytest.approx(101.0)


@pytest.mark.parametrize(
    "trip",
    [RoundTrip(1.0, 5.0, 5.0, 0.5), RoundTrip(1.0, 5.0, 4.0, 2.0), RoundTrip(1.0, 5.0, 8.0, 2.0)],
    ids=["heard before asked", "answered before received", "longer there than away"],
)
def test_an_exchange_that_cannot_have_been_is_refused(trip: RoundTrip) -> None:
    clock = ClockOffset()
    assert not clock.add(trip)
    assert not clock.known
