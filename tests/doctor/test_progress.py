"""How far commands say they are."""

import pytest

from seqnets import progress
from seqnets.progress import Progress, about, duration


@pytest.fixture
def clock(monkeypatch):
    """Ten seconds pass between one look at it and the next."""
    times = iter(range(0, 1000, 10))
    monkeypatch.setattr(progress.time, "monotonic", lambda: next(times))


def test_off_a_terminal_each_part_is_a_line_with_the_time_left(clock, capsys):
    with Progress(3) as shown:
        for name in ("one", "two", "three"):
            shown.advance(name)
    assert capsys.readouterr().err.splitlines() == ["[1/3, 20 s left] one", "[2/3, 10 s left] two", "[3/3] three"]


def test_on_a_terminal_it_is_a_bar_that_is_gone_at_the_end(monkeypatch, capsys):
    pytest.importorskip("rich", reason="it draws the bar")
    monkeypatch.setattr(progress.sys.stderr, "isatty", lambda: True)
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "60")
    with Progress(2) as shown:
        shown.advance("a name that is [bold] and longer than what a terminal of that width has room for")
    said = capsys.readouterr().err
    assert "1/2" in said and "a name that" in said and "…" in said and "room for" not in said
    assert "[1/2" not in said


@pytest.mark.parametrize(("seconds", "expected"), [(0.2, "1 s"), (119.4, "119 s"), (119.6, "2 min"), (3600, "60 min")])
def test_a_duration_is_in_seconds_or_minutes(seconds, expected):
    assert duration(seconds) == expected


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [(0, "less than a minute"), (44, "less than a minute"), (45, "about 1 minute"), (95, "about 2 minutes")],
)
def test_an_estimate_is_in_minutes(seconds, expected):
    assert about(seconds) == expected
