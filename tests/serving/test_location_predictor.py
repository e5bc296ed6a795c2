from __future__ import annotations

import asyncio
import json
import threading
from typing import Any

import numpy as np
import pytest
from letters import LettersPredictor, golden_entry

from prottune.errors import ArtifactError
from prottune.serving.answers import NoNumber
from prottune.serving.predictor import LocationPredictor
from prottune.serving.sdk import InferInput, InferRequest, InvalidInput
from prottune.serving.settings import ServeConfig


@pytest.fixture
def letters() -> LettersPredictor:
    return LettersPredictor()


@pytest.fixture
def model(letters: LettersPredictor) -> LocationPredictor:
    return LocationPredictor(letters, ServeConfig(), "7")


def test_v1_answers_with_exactly_the_documented_fields(model: LocationPredictor) -> None:
    body = {"instances": ["kkkww", {"accession": "P1", "sequence": "S" * 60}]}
    answer = asyncio.run(model.predict(body))
    assert answer["model_version"] == "7"
    first, second = answer["predictions"]
    assert first == {
        "accession": None,
        "location": "Nucleus",
        "probability": pytest.approx(4 / 6),
        "probabilities": {
            "Nucleus": pytest.approx(4 / 6),
            "Cell.membrane": pytest.approx(1 / 6),
            "Lysosome/Vacuole": pytest.approx(1 / 6),
        },
        "confident": True,
        "unlike_training": True,
        "membrane": None,
        "truncated": False,
        "num_residues": 5,
    }
    assert (second["accession"], second["location"]) == ("P1", "Lysosome/Vacuole")
    assert (second["truncated"], second["num_residues"], second["unlike_training"]) == (True, 60, False)


def test_v2_answers_with_four_tensors(model: LocationPredictor) -> None:
    request = InferRequest("prottune", [InferInput("sequence", [2], "BYTES", ["KKK", "LLLL"])], "id-1")
    response = asyncio.run(model.predict(request))
    tensors = {output.name: output for output in response.outputs}
    assert (response.id, response.model_name, response.model_version) == ("id-1", "prottune", "7")
    assert {name: (t.datatype, t.shape) for name, t in tensors.items()} == {
        "location": ("BYTES", [2]),
        "probability": ("FP32", [2]),
        "probabilities": ("FP32", [2, 3]),
        "classes": ("BYTES", [3]),
    }
    assert tensors["location"].data == ["Nucleus", "Cell.membrane"]
    assert tensors["classes"].data == ["Nucleus", "Cell.membrane", "Lysosome/Vacuole"]
    np.testing.assert_allclose(tensors["probability"].data, [4 / 6, 5 / 7], rtol=1e-6)
    np.testing.assert_allclose(
        tensors["probabilities"].data, [4 / 6, 1 / 6, 1 / 6, 1 / 7, 5 / 7, 1 / 7], rtol=1e-6
    )


def test_a_v2_request_without_an_id_gets_one(model: LocationPredictor) -> None:
    request = InferRequest("prottune", [InferInput("sequence", [1], "BYTES", ["KKK"])])
    assert len(asyncio.run(model.predict(request)).id) == 32


def test_the_metadata_describes_what_is_answered(model: LocationPredictor) -> None:
    assert model.get_input_types() == [{"name": "sequence", "datatype": "BYTES", "shape": [-1]}]
    request = InferRequest("prottune", [InferInput("sequence", [1], "BYTES", ["KKK"])])
    outputs = asyncio.run(model.predict(request)).outputs
    assert [(entry["name"], entry["datatype"]) for entry in model.get_output_types()] == [
        (output.name, output.datatype) for output in outputs
    ]


def test_the_model_runs_in_one_thread_off_the_event_loop(
    model: LocationPredictor, letters: LettersPredictor
) -> None:
    async def ask_often() -> None:
        await asyncio.gather(*(model.predict({"instances": ["KKK"]}) for _ in range(20)))

    asyncio.run(ask_often())
    assert len(letters.threads) == 1
    assert threading.get_ident() not in letters.threads


def test_a_refused_request_never_reaches_the_model(
    model: LocationPredictor, letters: LettersPredictor
) -> None:
    with pytest.raises(InvalidInput):
        asyncio.run(model.predict({"instances": ["KKK", "K1"]}))
    assert letters.asked == []


def test_a_model_that_reproduces_its_golden_answers_passes(model: LocationPredictor) -> None:
    model.check([golden_entry("KKK"), golden_entry("SSLK")])


@pytest.mark.parametrize("wrong", [0.05, float("nan")])
def test_a_model_that_answers_otherwise_than_when_it_was_made_is_refused(
    model: LocationPredictor, wrong: float
) -> None:
    golden: dict[str, Any] = golden_entry("SSLK", "GOLDEN2")
    golden["probabilities"]["Nucleus"] += wrong
    with pytest.raises(ArtifactError, match=r"GOLDEN2: a probability differs by (0\.05|nan)"):
        model.check([golden_entry("KKK"), golden])


@pytest.fixture
def telling() -> LocationPredictor:
    """A model that also says whether a protein is bound to a membrane."""
    return LocationPredictor(LettersPredictor(tells_membrane=True), ServeConfig(), "7")


def test_a_model_that_tells_the_membrane_answers_with_its_probability(telling: LocationPredictor) -> None:
    answer = asyncio.run(telling.predict({"instances": ["KKKL", "LL"]}))
    assert [entry["membrane"] for entry in answer["predictions"]] == [0.25, 1.0]
    assert json.loads(json.dumps(answer)) == answer


def test_in_v2_the_membrane_is_a_fifth_tensor_and_the_metadata_lists_it(telling: LocationPredictor) -> None:
    request = InferRequest("prottune", [InferInput("sequence", [2], "BYTES", ["KKKL", "LL"])])
    outputs = asyncio.run(telling.predict(request)).outputs
    membrane = outputs[-1]
    assert (membrane.name, membrane.datatype, membrane.shape) == ("membrane", "FP32", [2])
    assert list(membrane.data) == [0.25, 1.0]
    listed = telling.get_output_types()
    assert listed[-1] == {"name": "membrane", "datatype": "FP32", "shape": [-1]}
    assert [entry["name"] for entry in listed] == [output.name for output in outputs]


def test_the_membrane_too_must_be_the_golden_one(telling: LocationPredictor) -> None:
    golden = golden_entry("KKKL") | {"membrane": 0.25}
    telling.check([golden])
    for wrong in ({"membrane": 0.3}, {"membrane": float("nan")}):
        with pytest.raises(ArtifactError, match=r"GOLDEN1: a probability differs by (0\.05|nan)"):
            telling.check([golden | wrong])
    with pytest.raises(ArtifactError, match="GOLDEN1: a probability differs by nan"):
        telling.check([golden_entry("KKKL")])


class Numberless(LettersPredictor):
    """Loses its numbers over a W."""

    def __init__(self, field: str, number: float) -> None:
        super().__init__(tells_membrane=True)
        self.field, self.number = field, number

    def predict(self, sequences: Any) -> Any:
        answers = super().predict(sequences)
        for answer in answers:
            if answer.unlike_training:
                setattr(answer, self.field, getattr(answer, self.field) * self.number)
        return answers


@pytest.mark.parametrize("number", [float("nan"), float("inf")])
@pytest.mark.parametrize("field", ["probabilities", "membrane"])
def test_an_answer_that_is_no_number_is_not_passed_on(
    field: str, number: float, caplog: pytest.LogCaptureFixture
) -> None:
    model = LocationPredictor(Numberless(field, number), ServeConfig(), "7")
    assert asyncio.run(model.predict({"instances": ["KKKL"]}))["predictions"][0]["membrane"] == 0.25
    v2 = InferRequest("prottune", [InferInput("sequence", [2], "BYTES", ["KKKL", "WLL"])])
    for body in ({"instances": ["KKKL", "WLL"]}, v2):
        with pytest.raises(
            NoNumber, match=r"^sequence 1 \(counted from 0\): the model answered with what is no"
        ):
            asyncio.run(model.predict(body))
    assert [record.levelname for record in caplog.records] == ["ERROR"] * 2
    assert "WLL" not in caplog.text


def test_before_the_golden_check_a_model_is_not_ready(model: LocationPredictor) -> None:
    assert model.ready is False
