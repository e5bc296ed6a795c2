"""Measure one benchmark in this process.

`python -m benchmarks` starts this with the environment that the benchmark needs.
"""

from __future__ import annotations

import argparse
import datetime
import importlib
import logging
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

from benchmarks.machine import load, machine, versions
from benchmarks.rows import NotRun, Options, Row, as_row, write_rows
from benchmarks.running import MODULES


def measured(name: str, options: Options) -> list[Row]:
    """The rows of one benchmark, with machine, versions and date; the planned ones if it cannot run here."""
    module: Any = importlib.import_module(MODULES[name])
    before = load()
    try:
        found: Iterable[Any] = module.rows(options)
    except NotRun as reason:
        return [row.not_run(str(reason)) for row in module.PLANNED]
    rows = [row if isinstance(row, Row) else as_row(row) for row in found]
    made: dict[str, Any] = {
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "versions": versions(),
        "load": f"{before} before, {load()} after",
        "mode": "quick" if options.quick else "full",
    }
    return [replace(row, machine=row.machine or machine(), **made) for row in rows]


def main() -> None:
    logging.basicConfig(level=logging.WARNING)
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("name", choices=list(MODULES))
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--source", type=Path)
    arguments = parser.parse_args()
    options = Options(quick=arguments.quick, source=arguments.source)
    write_rows(measured(arguments.name, options), arguments.output)


if __name__ == "__main__":
    main()
