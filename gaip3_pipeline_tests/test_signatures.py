"""Functions take few positional parameters."""

import ast

from gaip3_pipeline.layout import PACKAGE

MOST = 6


def test_no_function_takes_more_than_six_positional_parameters() -> None:
    seen = 0
    for module in sorted(PACKAGE.rglob("*.py")):
        for node in ast.walk(ast.parse(module.read_text(encoding="utf-8"))):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                names = [
                    a.arg
                    for a in (*node.args.posonlyargs, *node.args.args)
                    if a.arg not in ("self", "cls")
                ]
                assert len(names) <= MOST, f"{module}:{node.lineno} {node.name}({', '.join(names)})"
                seen += 1
    assert seen > 500
