"""Run the benchmarks, each in a process of its own.

Writes `benchmarks/results.json` and the table in `docs/benchmarks.md`. A benchmark that fails leaves its
place in the table with the reason, the others stay, and the exit code is 1.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

from benchmarks.rows import Options, Row, figure, merged, read_rows, write_rows, write_table
from benchmarks.running import MODULES, everything_planned, in_order, run_apart

_ROOT = Path(__file__).resolve().parent.parent
RESULTS = _ROOT / "benchmarks" / "results.json"
PAGE = _ROOT / "docs" / "benchmarks.md"


def main() -> int:
    arguments = _parser().parse_args()
    options = Options(quick=arguments.quick, source=arguments.source)
    failed = []
    for name in arguments.only or MODULES:
        start = time.perf_counter()
        print(f"{name} ...", flush=True)
        rows, reason = run_apart(name, options)
        for row in rows:
            print(f"  {_line(row)}")
        print(f"  {time.perf_counter() - start:.0f} s", flush=True)
        if reason:
            failed.append(name)
        known = merged(everything_planned(), read_rows(arguments.results))
        everything = in_order(merged(known, rows))
        write_rows(everything, arguments.results)
        write_table(everything, arguments.page)
    if failed:
        print(f"failed: {', '.join(failed)}", file=sys.stderr)
    return 1 if failed else 0


def _line(row: Row) -> str:
    if row.met is None:
        return f"{row.what}: {row.note}"
    goal = f"{'at most' if row.at_most else 'at least'} {figure(row.goal)}"
    sides = f"{figure(row.ours)} {row.unit}, peer {figure(row.peer)}, limit {figure(row.limit)}"
    return f"{row.what}: {figure(row.ratio)} (goal {goal}: {'met' if row.met else 'NOT met'}); {sides}"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="smaller sizes, fewer repetitions")
    parser.add_argument(
        "--only", action="append", choices=list(MODULES), help="one benchmark; may be repeated"
    )
    parser.add_argument("--source", type=Path, help="FASTA of real proteins, instead of random ones")
    parser.add_argument("--results", type=Path, default=RESULTS, help="where rows are kept as JSON")
    parser.add_argument("--page", type=Path, default=PAGE, help="the page that holds the table")
    return parser


if __name__ == "__main__":
    sys.exit(main())
