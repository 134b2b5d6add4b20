"""Progress lines with the time left."""

import io

from gaip3_pipeline import progress
from gaip3_pipeline.progress import Progress, clock, watched_by


def shown(monkeypatch, times, updates):
    """The lines written for ``updates`` of ``done`` at the given seconds; the first time is that
    of the start."""
    clockwork = iter(times)
    monkeypatch.setattr(progress.time, "monotonic", lambda: next(clockwork))
    stream = io.StringIO()
    bar = Progress("training", 100, stream, every=0)
    for done in updates:
        bar.update(done)
    return stream.getvalue().splitlines()


def test_the_time_left_follows_the_rate_without_the_first_slow_step(monkeypatch):
    lines = shown(monkeypatch, [0, 0, 30, 40], [0, 1, 11])
    assert "1m 29s left" in lines[-1]


def test_resumed_work_does_not_count_towards_the_rate(monkeypatch):
    lines = shown(monkeypatch, [0, 0, 30, 40], [50, 51, 61])
    assert "39s left" in lines[-1]


def test_the_end_is_reported_once_with_the_time_it_took(monkeypatch):
    lines = shown(monkeypatch, [0, 0, 10, 75, 80], [0, 1, 100, 100])
    assert lines[-1].endswith("done in 1m 15s")
    assert sum("done in" in line for line in lines) == 1


def test_times_are_written_in_hours_minutes_and_seconds():
    assert [clock(s) for s in (4.6, 75, 3720)] == ["5s", "1m 15s", "1h 02m"]


def test_a_watcher_is_told_only_of_work_that_begins_while_it_watches():
    told, stream = [], io.StringIO()
    before = Progress("before", 1, stream)
    with watched_by(lambda *what: told.append(what)):
        inside = Progress("  training", 4, stream)
        inside.update(4)
        inside.another("  scoring")(2, 2)
        before.update(1)
    Progress("after", 1, stream).update(1)
    assert told == [("training", 4, 4, 0.0), ("scoring", 2, 2, 0.0)]
