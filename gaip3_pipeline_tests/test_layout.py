"""Paths are defined in one module."""

import ast
from collections.abc import Iterator
from pathlib import Path

from gaip3_pipeline.layout import PACKAGE

# files in a temporary folder that is removed at once
OF_A_TRIAL = {"doctor.py": {"first", "second"}}


def spelled(module: Path) -> Iterator[str]:
    """String constants that are joined to a path by ``/``."""
    for node in ast.walk(ast.parse(module.read_text(encoding="utf-8"))):
        if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Div):
            for side in (node.left, node.right):
                if isinstance(side, ast.Constant) and isinstance(side.value, str):
                    yield side.value


def test_only_the_layout_joins_string_constants_to_paths() -> None:
    assert any(spelled(PACKAGE / "layout.py"))
    for module in sorted(PACKAGE.rglob("*.py")):
        if module != PACKAGE / "layout.py":
            assert set(spelled(module)) <= OF_A_TRIAL.get(module.name, set()), module
