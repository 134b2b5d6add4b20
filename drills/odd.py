"""Sound input with a few changes that break readers."""

import json
from collections.abc import Callable
from typing import Any, Protocol, TypeVar

import hypothesis
from hypothesis import HealthCheck, Phase
from hypothesis import strategies as st

SPECIAL = [
    *("", "\0", "\x1b[2J", "\r\n", '"', "'", ",", ";", "=", "..", "/", "../../outside", "\ufeff"),
    *("nan", "inf", "-1", "1e999", "9" * 5000, "0.5", "null", "true", "é", "\ud7ff", "\u2028"),
    *("<<<<<<< ", "[" * 3000, '{"a":' * 3000, "x" * 70_000, "a" * 300),
]
TOKENS = [text.encode() for text in SPECIAL] + [b"\xff\xfe", b"\xed\xa0\x80", bytes(4), b"\xff" * 8]
ODD: list[Any] = [
    *(None, True, -1, 0, 10**400, 2**63, 1e308, float("nan"), float("inf"), "", [], {}, [[]]),
    *({"": None}, "\0", "\ud800", "\x1b[2J", "../../outside", "/", "x" * 100_000, "9" * 5000),
]
Drawn = TypeVar("Drawn")


class Draw(Protocol):
    """How a value of a strategy is drawn: ``data.draw`` of Hypothesis."""

    def __call__(self, strategy: st.SearchStrategy[Drawn], /) -> Drawn: ...


def try_all(attempt: Callable[[Draw], None], inputs: int, seed: int) -> None:
    """Call ``attempt`` with ``inputs`` ways to draw values, the same ones for the same ``seed``."""

    @hypothesis.seed(seed)
    @hypothesis.settings(
        max_examples=inputs,
        database=None,
        deadline=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @hypothesis.given(st.data())
    def try_one(data: st.DataObject) -> None:
        attempt(data.draw)

    try_one()


def mutated(draw: Draw, sound: list[bytes], most: int = 4) -> bytes:
    """One of ``sound`` with up to ``most`` changes."""
    data = bytearray(draw(st.sampled_from(sound)))
    for _ in range(draw(st.integers(1, most))):
        at = draw(st.integers(0, len(data)))
        end = min(len(data), at + draw(st.integers(1, 40)))
        how = draw(st.sampled_from(["cut", "flip", "remove", "repeat", "token", "token", "zeros"]))
        if how == "cut":
            del data[at:]
        elif how == "flip" and at < len(data):
            data[at] ^= 1 << draw(st.integers(0, 7))
        elif how == "remove":
            del data[at:end]
        elif how == "repeat":
            data[at:at] = data[at:end] * draw(st.integers(1, 50))
        elif how == "zeros":
            data[at:end] = bytes(end - at)
        elif how == "token":
            data[at : draw(st.sampled_from([at, end]))] = draw(st.sampled_from(TOKENS))
    return bytes(data)


def changed(draw: Draw, value: Any) -> Any:
    """``value``, of JSON, with one odd part."""
    if isinstance(value, dict) and value and draw(st.integers(0, 9)):
        key = draw(st.sampled_from(sorted(value)))
        how = draw(st.integers(0, 5))
        if how == 0:
            return {k: v for k, v in value.items() if k != key}
        if how == 1:
            return value | {draw(st.sampled_from(SPECIAL)): draw(st.sampled_from(ODD))}
        return value | {key: changed(draw, value[key])}
    if isinstance(value, list) and value and draw(st.integers(0, 9)):
        i = draw(st.integers(0, len(value) - 1))
        return [*value[:i], changed(draw, value[i]), *value[i + 1 :]]
    return draw(st.sampled_from(ODD))


def odd_json(draw: Draw, sound: list[bytes]) -> bytes:
    """A JSON text of ``sound`` with an odd value in it, or with changed bytes."""
    if draw(st.booleans()):
        return mutated(draw, sound)
    value = changed(draw, json.loads(draw(st.sampled_from(sound))))
    return json.dumps(value, ensure_ascii=draw(st.booleans())).encode("utf-8", "surrogatepass")
