"""Errors of tables that break their contract."""

from collections.abc import Sequence

from gaip3_pipeline.tables.names import printable

MAX_PROBLEMS = 20
_LONGEST = 1000  # characters of a line, which may quote several paths


class ContractError(ValueError):
    """A table that breaks its contract; the message has one line per problem."""


def at_most(lines: Sequence[str]) -> list[str]:
    """``lines``, or the first ``MAX_PROBLEMS`` of them and the number of the others."""
    more = [f"… and {len(lines) - MAX_PROBLEMS} more"] if len(lines) > MAX_PROBLEMS else []
    return [*lines[:MAX_PROBLEMS], *more]


def clear(message: str) -> str:
    """``message`` as a terminal shows it: what it quotes of a file is cut, and has no control
    characters."""
    lines = map(printable, message.split("\n"))
    half = _LONGEST // 2 - 2
    return "\n".join(
        line if len(line) <= _LONGEST else f"{line[:half]} … {line[-half:]}" for line in lines
    )


def complaint(printed: list[str]) -> str:
    """What a command of ``gaip3`` that failed complains of: of the lines that it ``printed``, those
    from click's last ``Error:`` on, or the last line."""
    lines = printed or ["it printed nothing"]
    at = max(
        (i for i, line in enumerate(lines) if line.startswith("Error: ")), default=len(lines) - 1
    )
    return "\n".join(lines[at:]).removeprefix("Error: ")
