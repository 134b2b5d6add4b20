"""Paths are spelled in one module."""

import ast
from collections.abc import Iterator
from pathlib import Path

from gaip3_pipeline.layout import PACKAGE

OF_A_TRIAL = {"doctor.py": {"first", "second"}}  # files in a temporary folder
# a part of the checkpoints that only the training uses
OF_A_TRAINING = {"generator.py": {"best"}}


def spelled(module: Path) -> Iterator[str]:
    """The constants that a module joins to a path by ``/``."""
    for node in ast.walk(ast.parse(module.read_text(encoding="utf-8"))):
        if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Div):
            for side in (node.left, node.right):
                if isinstance(side, ast.Constant) and isinstance(side.value, str):
                    yield side.value


def test_only_the_layout_spells_paths() -> None:
    assert any(spelled(PACKAGE / "layout.py"))
    for module in sorted(PACKAGE.rglob("*.py")):
        if module != PACKAGE / "layout.py":
            own = OF_A_TRIAL.get(module.name, set()) | OF_A_TRAINING.get(module.name, set())
            assert set(spelled(module)) <= own, module
