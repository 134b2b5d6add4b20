"""A sample of the drills (``make drills``): the quick ones, a few times, at fixed moments."""

import random
from pathlib import Path

import pytest

from drills.drill import DRILLS, Exercise, Skipped
from drills.load import most_turns_of_another
from drills.power import follow
from drills.record import FURTHER, PAGE, lines, page
from gaip3_pipeline.layout import DataRoot

SAMPLE = [name for name, drill in DRILLS.items() if drill.sample]


def no_finished_root(folder: Path) -> DataRoot:
    raise AssertionError("a drill of the sample must do without a finished root")


@pytest.mark.drills
@pytest.mark.parametrize("name", SAMPLE)
def test_nothing_is_lost(name: str, tmp_path: Path) -> None:
    drill = DRILLS[name]
    exercise = Exercise(tmp_path, drill.sample, random.Random(name), no_finished_root)
    try:
        drill.run(exercise)
    except Skipped as e:
        pytest.skip(str(e))
    assert exercise.lost == []
    assert exercise.done == drill.sample


def test_an_order_of_calls_that_a_power_loss_breaks_is_found() -> None:
    root = "/r/root/"
    write = f'7 write(3<{root}.writing-a~1~2~x.csv>, "a", 1) = 1'
    flush = f"7 fsync(3<{root}.writing-a~1~2~x.csv>) = 0"
    rename = f'7 rename("{root}.writing-a~1~2~x.csv", "{root}a.csv") = 0'
    names = f"7 fsync(4<{root[:-1]}>) = 0"
    said = '7 write(1<pipe:[5]>, "acknowledged a table\\n", 21) = 21'
    assert follow([write, flush, rename, names, said], "/r/").faults == []
    for calls in (
        [write, rename, flush, names, said],
        [write, flush, rename, said, names],
        [write, flush, names, rename, said],
        [f'7 write(3<{root}a.csv>, "a", 1) = 1', said],
    ):
        assert len(follow(calls, "/r/").faults) == 1, calls


def test_a_tab_that_waits_while_another_is_answered_three_times_is_found() -> None:
    in_turn = [[(0.0, 1.0), (1.0, 3.0), (3.0, 5.0)], [(0.0, 2.0), (2.0, 4.0)]]
    asks_late = [[(0.0, 1.0), (1.0, 3.0), (3.0, 4.0)], [(0.0, 2.0), (3.5, 5.0)]]
    starved = [[(0.0, 1.0), (1.0, 2.0), (2.0, 3.0)], [(0.0, 4.0)]]
    waits = [in_turn, asks_late, starved, [[(0.0, 1.0)], []]]
    assert [most_turns_of_another(w) for w in waits] == [1, 1, 3, 0]


def test_the_page_shows_what_was_recorded() -> None:
    assert PAGE.read_text(encoding="utf-8") == page(), "run python -m drills --record"
    assert {line["drill"] for line in lines()} <= {*DRILLS, *FURTHER}
