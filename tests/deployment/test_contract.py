"""The contract test against a server on this machine that answers, rightly or wrongly."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import pytest
from small_endpoint import CLASSES, GOLDEN, right_answer

from prottune.deployment.contract import check_endpoint
from prottune.deployment.settings import DeployConfig
from prottune.errors import DeploymentError

CONFIG = DeployConfig(max_probability_difference=0.02)
Change = Callable[[str, dict[str, Any]], Any]


@pytest.fixture
def serve() -> Iterator[Callable[..., str]]:
    """Start a server; a function of path and right answer changes what it says. Returns its address."""
    servers: list[HTTPServer] = []

    def start(change: Change = lambda path, answer: answer, status: int = 200, num_busy: int = 0) -> str:
        replies = [429] * num_busy

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                answer = change(self.path, right_answer(self.path, body))
                self.send_response(replies.pop() if replies else status)
                self.send_header("Retry-After", "0")
                self.end_headers()
                self.wfile.write(json.dumps(answer).encode())

            def log_message(self, *_: object) -> None:
                pass

        server = HTTPServer(("127.0.0.1", 0), Handler)
        servers.append(server)
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        return f"http://127.0.0.1:{server.server_port}"

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


def first_v1(change: Callable[[dict[str, Any]], Any]) -> Change:
    """Change the first V1 prediction."""

    def changed(path: str, answer: dict[str, Any]) -> dict[str, Any]:
        if ":predict" in path:
            change(answer["predictions"][0])
        return answer

    return changed


def v2_output(name: str, data: list[Any]) -> Change:
    """Change one V2 tensor."""

    def changed(path: str, answer: dict[str, Any]) -> dict[str, Any]:
        for output in answer.get("outputs", []):
            if output["name"] == name:
                output["data"] = data
        return answer

    return changed


def test_an_endpoint_that_answers_as_the_model_did_passes(serve: Callable[..., str]) -> None:
    assert check_endpoint(serve(), GOLDEN, CONFIG, "7") == 0.0


def test_the_largest_difference_is_reported(serve: Callable[..., str]) -> None:
    almost = {"probability": 0.76, "probabilities": {"Nucleus": 0.76, "Plastid": 0.24}}
    url = serve(first_v1(lambda entry: entry.update(almost)))
    assert check_endpoint(url, GOLDEN, CONFIG, "7") == pytest.approx(0.01)


WRONG: dict[str, tuple[Change, str]] = {
    "probability": (
        first_v1(lambda entry: entry.update(probability=0.7, probabilities={"Nucleus": 0.7, "Plastid": 0.3})),
        r"V1, sequence G1: a probability differs by 0\.0500 from the golden answer, expected at most 0\.02",
    ),
    "not a number": (
        first_v1(lambda entry: entry["probabilities"].update(Nucleus=float("nan"))),
        "V1, sequence G1: the probabilities sum to nan, expected 1",
    ),
    "sum": (
        first_v1(lambda entry: entry["probabilities"].update(Plastid=0.26)),
        r"V1, sequence G1: the probabilities sum to 1\.0100, expected 1",
    ),
    "location": (
        first_v1(lambda entry: entry.update(location="Plastid")),
        r"V1, sequence G1: 'Plastid' with 0\.7500 is not its most probable location",
    ),
    "names": (
        first_v1(lambda entry: entry.update(probabilities={"LABEL_0": 0.75, "LABEL_1": 0.25})),
        r"V1, sequence G1: locations \['LABEL_0', 'LABEL_1'\], expected \['Nucleus', 'Plastid'\]",
    ),
    "version": (
        lambda path, answer: {**answer, "model_version": "6"},
        "model version '6', expected '7'",
    ),
    "membrane where there is none": (
        first_v1(lambda entry: entry.update(membrane=0.5)),
        r"V1, sequence G1: membrane 0\.5, expected None as in the golden answer",
    ),
    "no word of the membrane": (
        first_v1(lambda entry: entry.pop("membrane")),
        r"an answer of another shape \(KeyError: 'membrane'\)",
    ),
    "missing field": (
        first_v1(lambda entry: entry.pop("location")),
        r"an answer of another shape \(KeyError: 'location'\)",
    ),
    "number of answers": (
        lambda path, answer: {**answer, "predictions": answer.get("predictions", [])[:1]},
        "1 answers to 2 sequences",
    ),
    "not an object": (lambda path, answer: [1], "an answer of another shape"),
    "v2 order": (
        v2_output("classes", ["Plastid", "Nucleus"]),
        "V2, sequence G1: a probability differs by 0.5",
    ),
    "v2 location": (
        v2_output("location", ["Nucleus", "Nucleus"]),
        r"V2, sequence G2: 'Nucleus' with 0\.7500 is not its most probable",
    ),
    "v2 length": (v2_output("probability", [0.75]), "V2|infer: an answer of another shape"),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_answer_names_the_sequence_and_the_numbers(serve: Callable[..., str], name: str) -> None:
    change, words = WRONG[name]
    with pytest.raises(DeploymentError, match=words):
        check_endpoint(serve(change), GOLDEN, CONFIG, "7")


TELLING = [entry | {"membrane": 0.1} for entry in GOLDEN]
"""Golden answers of a model that also says whether a protein is bound to a membrane."""


def with_membrane(v1: Any, v2: Any) -> Change:
    """Say so much of the membrane for every protein; None says nothing in V2."""

    def changed(path: str, answer: dict[str, Any]) -> dict[str, Any]:
        for entry in answer.get("predictions", []):
            entry["membrane"] = v1
        if "outputs" in answer and v2 is not None:
            answer["outputs"].append({"name": "membrane", "data": [v2] * len(GOLDEN)})
        return answer

    return changed


def test_the_membrane_is_compared_in_both_protocols(serve: Callable[..., str]) -> None:
    assert check_endpoint(serve(with_membrane(0.1, 0.1)), TELLING, CONFIG, "7") == 0.0
    assert check_endpoint(serve(with_membrane(0.1, 0.115)), TELLING, CONFIG, "7") == pytest.approx(0.015)


@pytest.mark.parametrize(
    ("v1", "v2", "words"),
    [
        (0.15, 0.1, r"V1, sequence G1: the membrane's probability differs by 0\.0500 from the golden answer"),
        (0.1, 0.15, r"V2, sequence G1: the membrane's probability differs by 0\.0500"),
        (float("nan"), 0.1, r"V1, sequence G1: the membrane's probability differs by nan"),
        (None, 0.1, r"V1, sequence G1: membrane None, expected 0\.1 as in the golden answer"),
        (0.1, None, r"V2, sequence G1: membrane None, expected 0\.1"),
        ("yes", 0.1, "an answer of another shape"),
    ],
)
def test_another_word_of_the_membrane_is_a_wrong_answer(
    serve: Callable[..., str], v1: Any, v2: Any, words: str
) -> None:
    with pytest.raises(DeploymentError, match=words):
        check_endpoint(serve(with_membrane(v1, v2)), TELLING, CONFIG, "7")


def test_an_endpoint_that_reads_only_bare_upper_case_fails(serve: Callable[..., str]) -> None:
    golden = [{**GOLDEN[0], "sequence": "MK" * 10}]

    def picky(path: str, answer: dict[str, Any]) -> dict[str, Any]:
        picky.calls += 1  # type: ignore[attr-defined]
        if picky.calls == 2:  # type: ignore[attr-defined]
            answer["predictions"][0].update(
                location="Plastid", probability=0.75, probabilities={"Nucleus": 0.25, "Plastid": 0.75}
            )
        return answer

    picky.calls = 0  # type: ignore[attr-defined]
    with pytest.raises(DeploymentError, match="V1 with spaces, sequence G1: a probability differs"):
        check_endpoint(serve(picky), golden, CONFIG, "7")


def test_of_two_locations_that_are_equally_probable_either_will_do(serve: Callable[..., str]) -> None:
    golden = {**GOLDEN[0], "probabilities": {"Nucleus": 0.505, "Plastid": 0.495}}

    def turned_round(path: str, answer: dict[str, Any]) -> dict[str, Any]:
        values = {"location": "Plastid", "probability": 0.505}
        if ":predict" in path:
            probabilities = {"Nucleus": 0.495, "Plastid": 0.505}
            answer["predictions"][0] = values | {"probabilities": probabilities, "membrane": None}
        else:
            tensors = {name: [value] for name, value in values.items()}
            tensors |= {"probabilities": [0.495, 0.505], "classes": CLASSES}
            answer["outputs"] = [{"name": name, "data": data} for name, data in tensors.items()]
        return answer

    assert check_endpoint(serve(turned_round), [golden], CONFIG, "7") == pytest.approx(0.01)


def test_an_error_reply_is_quoted(serve: Callable[..., str]) -> None:
    url = serve(lambda path, answer: {"error": "no such model"}, status=404)
    with pytest.raises(DeploymentError, match=r"predict: 404 .*no such model.*, expected 200"):
        check_endpoint(url, GOLDEN, CONFIG, "7")


def test_an_endpoint_that_others_keep_busy_is_asked_again_twice(serve: Callable[..., str]) -> None:
    assert check_endpoint(serve(num_busy=2), GOLDEN, CONFIG, "7") == 0.0
    with pytest.raises(DeploymentError, match=r"predict: 429 .*, expected 200"):
        check_endpoint(serve(num_busy=3), GOLDEN, CONFIG, "7")


def test_an_endpoint_that_is_not_there_is_named() -> None:
    with pytest.raises(DeploymentError, match=r"http://127\.0\.0\.1:9.*: no answer \(ConnectError"):
        check_endpoint("http://127.0.0.1:9", GOLDEN, CONFIG, "7")
