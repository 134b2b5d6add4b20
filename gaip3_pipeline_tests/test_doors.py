"""A sample of the drills: odd input by Hypothesis with a fixed seed, and the doors of the label
page. The drills themselves, ``drills/``, do more of the same."""

from pathlib import Path

import pytest

from drills import doors, mutations, requests

pytestmark = pytest.mark.drills

INPUTS = {
    "pictures": 10,
    "labels": 40,
    "label studio": 40,
    "settings": 12,
    "recipes": 20,
    "snapshots": 10,
    "stores": 10,
}


@pytest.mark.parametrize("kind", INPUTS)
def test_odd_input_is_used_or_refused_in_a_line(kind: str) -> None:
    outcome, wrong = mutations.drill(kind, INPUTS[kind], seed=1)
    assert wrong == []
    assert outcome.times == INPUTS[kind]


def test_odd_requests_get_an_answer(tmp_path: Path) -> None:
    outcome, wrong = requests.drill(60, seed=1, folder=tmp_path, with_slow=False)
    assert wrong == []
    assert outcome.times == 60


def test_the_doors_of_the_label_page_are_closed() -> None:
    tried = doors.run(quick=True)
    assert tried.wrong == []
    assert sum(outcome.times for outcome in tried.outcomes) > 300
