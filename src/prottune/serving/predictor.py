"""The model behind the endpoint, in KServe's terms: a request of either protocol in, its answer out.

The model runs in one thread of its own, so that the event loop stays free to answer probes.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import numpy as np

from prottune.errors import ArtifactError
from prottune.serving.questions import INPUT_NAME, Question, questions_of_v1, questions_of_v2
from prottune.serving.sdk import InferOutput, InferRequest, InferResponse, Model
from prottune.serving.settings import MODEL_NAME, ServeConfig

if TYPE_CHECKING:
    from prottune.model.inference import Prediction, Predictor


class LocationPredictor(Model):  # type: ignore[misc]
    """Serves one model under the name `prottune`."""

    def __init__(self, predictor: Predictor, config: ServeConfig, model_version: str) -> None:
        super().__init__(MODEL_NAME)
        self.model_version = model_version
        self._predictor = predictor
        self._config = config
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="model")

    @classmethod
    def from_folder(cls, folder: Path, config: ServeConfig, model_version: str) -> LocationPredictor:
        """Load a finished model folder; it is ready when it gives its own golden answers.

        Without a version, answers carry the start of the folder's digest.

        Raises: ArtifactError if the folder is damaged or answers differently from when it was made.
        """
        from prottune.artifacts import read_manifest
        from prottune.model.golden import read_golden
        from prottune.model.inference import Predictor

        version = model_version or read_manifest(folder, "train").digest[:12]
        model = cls(Predictor.load(folder, config.precision), config, version)
        model.check(read_golden(folder))
        model.load()
        return model

    def check(self, golden: Sequence[dict[str, Any]]) -> None:
        """Ask the golden sequences and compare.

        Raises: ArtifactError if a probability differs by more than the settings allow.
        """
        answers = self._predictor.predict([entry["sequence"] for entry in golden])
        for entry, answer in zip(golden, answers, strict=True):
            said = answer.probabilities.tolist()
            expected = [entry["probabilities"][label] for label in self._predictor.labels]
            if answer.membrane is not None:
                said.append(answer.membrane)
                expected.append(entry.get("membrane", np.nan))
            difference = float(np.abs(np.subtract(said, expected)).max())  # NaN if one of them is
            if not difference <= self._config.max_probability_difference:
                raise ArtifactError(
                    f"golden sequence {entry['accession']}: a probability differs by {difference:.4f}, "
                    f"expected at most {self._config.max_probability_difference}; it cannot be served here"
                )

    async def predict(self, payload: Any, headers: dict[str, str] | None = None) -> Any:
        """Answer one request: V2 as `InferRequest`, V1 as parsed JSON or its bytes."""
        if isinstance(payload, InferRequest):
            questions = questions_of_v2(payload, self._config)
            return self._v2(payload, await self._answers(questions))
        questions = questions_of_v1(payload, self._config)
        return self._v1(questions, await self._answers(questions))

    async def _answers(self, questions: Sequence[Question]) -> list[Prediction]:
        sequences = [question.sequence for question in questions]
        return await asyncio.get_running_loop().run_in_executor(
            self._thread, self._predictor.predict, sequences
        )

    def _v1(self, questions: Sequence[Question], answers: Sequence[Prediction]) -> dict[str, Any]:
        predictions = [
            {
                "accession": question.accession,
                "location": answer.location,
                "probability": float(answer.probability),
                "probabilities": dict(
                    zip(self._predictor.labels, answer.probabilities.tolist(), strict=True)
                ),
                "confident": answer.confident,
                "unlike_training": answer.unlike_training,
                "membrane": answer.membrane,
                "truncated": answer.truncated,
                "num_residues": answer.num_residues,
            }
            for question, answer in zip(questions, answers, strict=True)
        ]
        return {"predictions": predictions, "model_version": self.model_version}

    def _v2(self, request: InferRequest, answers: Sequence[Prediction]) -> InferResponse:
        outputs = {
            "location": np.array([answer.location for answer in answers], object),
            "probability": np.array([answer.probability for answer in answers], np.float32),
            "probabilities": np.stack([answer.probabilities for answer in answers]).astype(np.float32),
            "classes": np.array(self._predictor.labels, object),
        }
        if self._predictor.tells_membrane:
            outputs["membrane"] = np.array([answer.membrane for answer in answers], np.float32)
        return InferResponse(
            response_id=request.id or uuid4().hex,
            model_name=self.name,
            model_version=self.model_version,
            infer_outputs=[_output(name, tensor) for name, tensor in outputs.items()],
            use_binary_outputs=request.use_binary_outputs,
            requested_outputs=request.request_outputs,
        )

    def get_input_types(self) -> list[dict[str, Any]]:
        """V2 metadata: -1 is any number."""
        return [{"name": INPUT_NAME, "datatype": "BYTES", "shape": [-1]}]

    def get_output_types(self) -> list[dict[str, Any]]:
        """V2 metadata: -1 is the number of sequences."""
        num_classes = len(self._predictor.labels)
        outputs: list[dict[str, Any]] = [
            {"name": "location", "datatype": "BYTES", "shape": [-1]},
            {"name": "probability", "datatype": "FP32", "shape": [-1]},
            {"name": "probabilities", "datatype": "FP32", "shape": [-1, num_classes]},
            {"name": "classes", "datatype": "BYTES", "shape": [num_classes]},
        ]
        if self._predictor.tells_membrane:
            outputs.append({"name": "membrane", "datatype": "FP32", "shape": [-1]})
        return outputs


def _output(name: str, tensor: np.ndarray[Any, Any]) -> InferOutput:
    output = InferOutput(name, list(tensor.shape), "BYTES" if tensor.dtype == object else "FP32")
    output.set_data_from_numpy(tensor, binary_data=False)
    return output
