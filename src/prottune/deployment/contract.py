"""The endpoint contract test: golden sequences are asked over V1 and V2, and the answers compared."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import httpx

from prottune.deployment.settings import DeployConfig
from prottune.errors import DeploymentError

MODEL_NAME = "prottune"
_TIMEOUT_SECONDS = 60.0
_SUM_TOLERANCE = 1e-3
_BUSY = (httpx.codes.TOO_MANY_REQUESTS, httpx.codes.SERVICE_UNAVAILABLE)
"""What an endpoint answers that others keep busy; asked twice more."""
_LONGEST_PAUSE_SECONDS = 5.0


@dataclass(frozen=True)
class Answer:
    """What an endpoint said about one sequence, in either protocol."""

    location: str
    probability: float
    probabilities: dict[str, float]
    membrane: float | None
    """None from a model that does not tell."""


def check_endpoint(
    url: str, golden: Sequence[Mapping[str, Any]], config: DeployConfig, model_version: str
) -> float:
    """Ask every golden sequence over both protocols; returns the largest difference of a probability.

    `url` is the base address; `golden` the content of golden.json. Each sequence is asked once more over V1
    in lower case and with spaces and line breaks, which must change nothing.

    Raises: DeploymentError naming the sequence and the numbers: a wrong version, location or probability,
        probabilities that do not sum to 1, an answer of another shape, an answer about the membrane from a
        model that gave none or none from one that did, or no answer.
    """
    sequences = [str(entry["sequence"]) for entry in golden]
    with httpx.Client(base_url=url, timeout=_TIMEOUT_SECONDS, trust_env=False) as client:
        asked = {
            "V1": _ask_v1(client, sequences, model_version),
            "V1 with spaces": _ask_v1(client, [_spaced(sequence) for sequence in sequences], model_version),
            "V2": _ask_v2(client, sequences, model_version),
        }
    return max(
        _compare(f"{url} {protocol}, sequence {entry['accession']}", answer, entry, config)
        for protocol, answers in asked.items()
        for entry, answer in zip(golden, answers, strict=True)
    )


def _ask_v1(client: httpx.Client, sequences: Sequence[str], model_version: str) -> list[Answer]:
    path = f"/v1/models/{MODEL_NAME}:predict"
    reply = _post(client, path, {"instances": list(sequences)})
    try:
        _check_version(client, path, reply["model_version"], model_version)
        answers = [
            Answer(
                entry["location"],
                float(entry["probability"]),
                dict(entry["probabilities"]),
                _number_or_none(entry["membrane"]),
            )
            for entry in reply["predictions"]
        ]
    except (KeyError, TypeError, ValueError) as error:
        raise _misshapen(client, path, error) from error
    return _as_many(client, path, answers, len(sequences))


def _ask_v2(client: httpx.Client, sequences: Sequence[str], model_version: str) -> list[Answer]:
    path = f"/v2/models/{MODEL_NAME}/infer"
    shape = [len(sequences)]
    tensor = {"name": "sequence", "datatype": "BYTES", "shape": shape, "data": list(sequences)}
    reply = _post(client, path, {"inputs": [tensor]})
    try:
        _check_version(client, path, reply["model_version"], model_version)
        data = {output["name"]: output["data"] for output in reply["outputs"]}
        names = data["classes"]
        rows = [
            data["probabilities"][start : start + len(names)]
            for start in range(0, len(data["probabilities"]), len(names))
        ]
        membrane = data.get("membrane", [None] * len(rows))
        columns = zip(data["location"], data["probability"], rows, membrane, strict=True)
        answers = [
            Answer(place, float(best), dict(zip(names, row, strict=True)), _number_or_none(bound))
            for place, best, row, bound in columns
        ]
    except (KeyError, TypeError, ValueError) as error:
        raise _misshapen(client, path, error) from error
    return _as_many(client, path, answers, len(sequences))


def _compare(where: str, answer: Answer, golden: Mapping[str, Any], config: DeployConfig) -> float:
    """Compare one answer; returns its largest difference.

    The location must be the most probable one of the answer. So it is the golden one, unless two golden
    probabilities lie so near each other that a correct answer in bf16 may turn them round.
    """
    expected: dict[str, float] = golden["probabilities"]
    if answer.probabilities.keys() != expected.keys():
        raise DeploymentError(
            f"{where}: locations {sorted(answer.probabilities)}, expected {sorted(expected)}"
        )
    total = math.fsum(answer.probabilities.values())
    if not abs(total - 1) <= _SUM_TOLERANCE:
        raise DeploymentError(f"{where}: the probabilities sum to {total:.4f}, expected 1")
    difference = max(abs(answer.probabilities[name] - expected[name]) for name in expected)
    if not difference <= config.max_probability_difference:
        raise DeploymentError(
            f"{where}: a probability differs by {difference:.4f} from the golden answer, "
            f"expected at most {config.max_probability_difference}"
        )
    difference = max(difference, _compare_membrane(where, answer.membrane, golden.get("membrane"), config))
    best = max(answer.probabilities.values())
    if answer.probability != best or answer.probabilities.get(answer.location) != best:
        raise DeploymentError(
            f"{where}: {answer.location!r} with {answer.probability:.4f} is not its most probable location"
        )
    return difference


def _compare_membrane(where: str, answer: float | None, golden: float | None, config: DeployConfig) -> float:
    """Compare what is said of the membrane; returns the difference, 0 where neither says anything."""
    if answer is None and golden is None:
        return 0.0
    if answer is None or golden is None:
        raise DeploymentError(f"{where}: membrane {answer}, expected {golden} as in the golden answer")
    difference = abs(answer - golden)
    if not difference <= config.max_probability_difference:
        raise DeploymentError(
            f"{where}: the membrane's probability differs by {difference:.4f} from the golden answer, "
            f"expected at most {config.max_probability_difference}"
        )
    return difference


def _number_or_none(value: Any) -> float | None:
    return None if value is None else float(value)


def _post(client: httpx.Client, path: str, body: Mapping[str, Any]) -> Any:
    for is_last in (False, False, True):
        try:
            reply = client.post(path, json=body)
        except httpx.HTTPError as error:
            raise DeploymentError(
                f"{client.base_url}{path}: no answer ({type(error).__name__}: {error})"
            ) from error
        if is_last or reply.status_code not in _BUSY:
            break
        wait = reply.headers.get("Retry-After", "")
        time.sleep(min(float(wait) if wait.isdigit() else 1.0, _LONGEST_PAUSE_SECONDS))
    if reply.status_code != httpx.codes.OK:
        raise DeploymentError(
            f"{client.base_url}{path}: {reply.status_code} {reply.text[:300]!r}, expected 200"
        )
    try:
        return reply.json()
    except ValueError as error:
        raise _misshapen(client, path, error) from error


def _check_version(client: httpx.Client, path: str, found: Any, expected: str) -> None:
    if found != expected:
        raise DeploymentError(f"{client.base_url}{path}: model version {found!r}, expected {expected!r}")


def _as_many(client: httpx.Client, path: str, answers: list[Answer], expected: int) -> list[Answer]:
    if len(answers) != expected:
        raise DeploymentError(f"{client.base_url}{path}: {len(answers)} answers to {expected} sequences")
    return answers


def _misshapen(client: httpx.Client, path: str, error: Exception) -> DeploymentError:
    return DeploymentError(
        f"{client.base_url}{path}: an answer of another shape ({type(error).__name__}: {error}); "
        "is this a prottune endpoint?"
    )


def _spaced(sequence: str) -> str:
    """The same protein as somebody may paste it: lower case, in blocks of ten."""
    blocks = [sequence[start : start + 10].lower() for start in range(0, len(sequence), 10)]
    return " \n".join(blocks)
