"""What the model said, in the words of each protocol: V1's objects, V2's tensors, and explanations."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import numpy as np

from prottune.errors import ArtifactError
from prottune.serving.questions import INPUT_NAME, Question
from prottune.serving.sdk import InferOutput, InferRequest, InferResponse
from prottune.serving.settings import MODEL_NAME

if TYPE_CHECKING:
    from prottune.model.attribution import Attribution
    from prottune.model.inference import Prediction


class NoNumber(ArtifactError):  # noqa: N818
    """The model answered with NaN or an infinite number, which says nothing about a protein."""


class Phrasing:
    """How one model's answers are put; V2's metadata says the same in advance."""

    def __init__(self, labels: tuple[str, ...], *, tells_membrane: bool, model_version: str) -> None:
        self._labels = labels
        self._tells_membrane = tells_membrane
        self._model_version = model_version

    def v1(self, questions: Sequence[Question], answers: Sequence[Prediction]) -> dict[str, Any]:
        """The answer to V1's `:predict`."""
        predictions = [
            {
                "accession": question.accession,
                "location": answer.location,
                "probability": float(answer.probability),
                "probabilities": dict(zip(self._labels, answer.probabilities.tolist(), strict=True)),
                "confident": answer.confident,
                "unlike_training": answer.unlike_training,
                "membrane": answer.membrane,
                "truncated": answer.truncated,
                "num_residues": answer.num_residues,
            }
            for question, answer in zip(questions, answers, strict=True)
        ]
        return {"predictions": predictions, "model_version": self._model_version}

    def v1_explanations(
        self,
        questions: Sequence[Question],
        answers: Sequence[Prediction],
        attributions: Sequence[Attribution],
    ) -> dict[str, Any]:
        """The answer to V1's `:explain`; docs/explanations.md lists the fields."""
        from prottune.explanation import explanation

        explanations = [
            {"accession": question.accession, **explanation(self._labels, answer, attribution)}
            for question, answer, attribution in zip(questions, answers, attributions, strict=True)
        ]
        return {"explanations": explanations, "model_version": self._model_version}

    def v2(self, request: InferRequest, answers: Sequence[Prediction]) -> InferResponse:
        """The answer to V2's inference, in the outputs that were asked for."""
        outputs = {
            "location": np.array([answer.location for answer in answers], object),
            "probability": np.array([answer.probability for answer in answers], np.float32),
            "probabilities": np.stack([answer.probabilities for answer in answers]).astype(np.float32),
            "classes": np.array(self._labels, object),
        }
        if self._tells_membrane:
            outputs["membrane"] = np.array([answer.membrane for answer in answers], np.float32)
        return InferResponse(
            response_id=request.id or uuid4().hex,
            model_name=MODEL_NAME,
            model_version=self._model_version,
            infer_outputs=[_output(name, tensor) for name, tensor in outputs.items()],
            use_binary_outputs=request.use_binary_outputs,
            requested_outputs=request.request_outputs,
        )

    def output_types(self) -> list[dict[str, Any]]:
        """V2 metadata: -1 is the number of sequences."""
        num_classes = len(self._labels)
        outputs: list[dict[str, Any]] = [
            {"name": "location", "datatype": "BYTES", "shape": [-1]},
            {"name": "probability", "datatype": "FP32", "shape": [-1]},
            {"name": "probabilities", "datatype": "FP32", "shape": [-1, num_classes]},
            {"name": "classes", "datatype": "BYTES", "shape": [num_classes]},
        ]
        if self._tells_membrane:
            outputs.append({"name": "membrane", "datatype": "FP32", "shape": [-1]})
        return outputs


INPUT_TYPES: list[dict[str, Any]] = [{"name": INPUT_NAME, "datatype": "BYTES", "shape": [-1]}]
"""V2 metadata: -1 is any number."""


def _output(name: str, tensor: np.ndarray[Any, Any]) -> InferOutput:
    output = InferOutput(name, list(tensor.shape), "BYTES" if tensor.dtype == object else "FP32")
    output.set_data_from_numpy(tensor, binary_data=False)
    return output
