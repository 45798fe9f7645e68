"""The clock, which follows that of the primary database."""

from datetime import UTC, datetime, timedelta

import pytest

from app.core import clock

MOMENT = datetime(2026, 11, 20, 12, tzinfo=UTC)


def seconds(number: float) -> timedelta:
    return timedelta(seconds=number)


@pytest.fixture(autouse=True)
def machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """Stop the clock of the machine, and undo all corrections after the test."""
    monkeypatch.setattr(clock, "_correction", timedelta())
    monkeypatch.setattr(clock, "system_now", lambda: MOMENT)


def follow(ahead: float, *, there: float = 0.001, back: float = 0.001) -> float:
    """Read a primary whose clock is `ahead` seconds; return the correction in seconds.

    The request takes `there` seconds, and the response `back` seconds.
    """
    sent = MOMENT - seconds(there + back)
    primary = sent + seconds(there + ahead)
    clock.follow(primary, sent=sent, received=MOMENT)
    return (clock.now() - MOMENT).total_seconds()


@pytest.mark.parametrize(("there", "back"), [(0, 0), (0.001, 0.001), (0, 3), (3, 0)])
def test_equal_clocks_are_not_corrected(there: float, back: float) -> None:
    assert follow(0, there=there, back=back) == 0


@pytest.mark.parametrize("ahead", [-3600, -5, 5, 3600])
def test_different_clocks_agree_within_the_round_trip(ahead: float) -> None:
    assert follow(ahead) == pytest.approx(ahead, abs=0.002)


@pytest.mark.parametrize("ahead", [-5, 5])
def test_slow_response_does_not_change_a_correct_clock(ahead: float) -> None:
    before = follow(ahead)
    assert follow(ahead, there=2, back=2) == before


@pytest.mark.parametrize(("there", "back"), [(4, 0), (0, 4)])
def test_correction_becomes_more_accurate(there: float, back: float) -> None:
    assert follow(-5, there=there, back=back) == pytest.approx(-5, abs=4)
    assert follow(-5) == pytest.approx(-5, abs=0.002)


def test_clock_of_a_new_primary_is_followed() -> None:
    follow(5)
    assert follow(-5) == pytest.approx(-5, abs=0.002)
    assert follow(0) == pytest.approx(0, abs=0.002)
