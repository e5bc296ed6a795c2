"""Fail when a module or a function of the product outgrows its limit: `python tests/check_sizes.py`."""

import ast
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
MAX_MODULE_LINES = {"src": 300, "pipelines": 300, "benchmarks": 300, "components": 95}
MAX_FUNCTION_LINES = 60


def too_large(path: Path, max_lines: int) -> list[str]:
    """Say what in one file is over its limit."""
    text = path.read_text(encoding="utf-8")
    name = path.relative_to(ROOT)
    found = []
    if (lines := text.count("\n")) > max_lines:
        found.append(f"{name}: {lines} lines, at most {max_lines}")
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            length = (node.end_lineno or node.lineno) - node.lineno + 1
            if length > MAX_FUNCTION_LINES and not is_signature_long(node):
                found.append(
                    f"{name}:{node.lineno}: {node.name} has {length} lines, at most {MAX_FUNCTION_LINES}"
                )
    return found


def is_signature_long(node: ast.FunctionDef | ast.AsyncFunctionDef) -> bool:
    """A KFP component or pipeline lists its parameters one a line; its body still counts."""
    return (node.end_lineno or 0) - node.body[0].lineno + 1 <= MAX_FUNCTION_LINES


if __name__ == "__main__":
    problems = [
        problem
        for folder, limit in MAX_MODULE_LINES.items()
        for path in sorted((ROOT / folder).rglob("*.py"))
        for problem in too_large(path, limit)
    ]
    sys.exit("\n".join(problems) or 0)
