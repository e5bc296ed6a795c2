"""Put a load on a server of this machine and say how it answered: `python -m benchmarks.serve --help`.

Requests come at a set rate whether or not the server keeps up, one protein each, with the lengths of real
proteins. Only addresses of this machine are asked. The exit code is 1 if a request was not answered with 200.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
from collections import Counter
from pathlib import Path

from benchmarks.http_client import Reply, ask_locations, local_address
from benchmarks.load import Outcome, open_loop
from benchmarks.proteins import sampled, sequences
from benchmarks.rows import Options

_SHOWN = {"p50": 50.0, "p99": 99.0, "longest": 100.0}
_NUM_PROTEINS = 2000
"""Different proteins that are asked, over and over."""


def main(words: list[str]) -> int:
    arguments = _parser().parse_args(words)
    try:
        local_address(arguments.url)
    except ValueError as error:
        print(f"benchmarks.serve: {error}", file=sys.stderr)
        return 2
    proteins = sampled(sequences(Options(source=arguments.source)), _NUM_PROTEINS)
    token = Path(arguments.token_file).read_text(encoding="utf-8").strip() if arguments.token_file else ""
    headers = {"authorization": f"Bearer {token}"} if token else {}
    requests = [ask_locations([protein[: arguments.max_residues]], headers) for protein in proteins]
    versions: Counter[str] = Counter()

    def check(_: int, reply: Reply) -> None:
        if reply.status == 200:
            versions[json.loads(reply.body)["model_version"]] += 1

    outcome = asyncio.run(
        open_loop(arguments.url, requests, arguments.rate, arguments.requests, check=check, told=_progress)
    )
    print(*told(outcome, arguments.within), sep="\n")
    print("answers by model version: " + ", ".join(f"{name} {number}" for name, number in versions.items()))
    return 0 if outcome.num_good == outcome.num_requests else 1


def told(outcome: Outcome, within: float) -> list[str]:
    """What came of a load test, in lines."""
    counts = ", ".join(f"{status}: {number:,}" for status, number in sorted(outcome.statuses.items()))
    return [
        f"{outcome.num_requests:,} requests in {outcome.seconds:.1f} s; by status {counts}",
        "answers with 200: "
        + ", ".join(f"{name} {1e3 * outcome.percentile(share):.1f} ms" for name, share in _SHOWN.items()),
        f"goodput {outcome.goodput(within):.1f} answers a second within {within:g} s",
    ]


def _progress(outcome: Outcome) -> None:
    if sys.stderr.isatty():
        print(
            f"\r{outcome.num_requests:,} answered, {outcome.num_good:,} with 200", end="\r", file=sys.stderr
        )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.serve", description=__doc__)
    parser.add_argument("--url", required=True, help="address of the server, as http://127.0.0.1:8080")
    parser.add_argument("--rate", type=float, default=50, help="requests a second")
    parser.add_argument("--requests", type=int, default=10_000, help="how many in all")
    parser.add_argument("--within", type=float, default=1.0, help="seconds within which an answer is of use")
    parser.add_argument("--source", type=Path, help="FASTA of real proteins, instead of random ones")
    parser.add_argument("--max-residues", type=int, default=20_000, help="longer proteins are cut")
    parser.add_argument("--token-file", help="file with the token that the server asks for")
    return parser


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
