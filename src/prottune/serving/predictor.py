"""The model behind the endpoint, in KServe's terms: a request of either protocol in, its answer out."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prottune.errors import ArtifactError
from prottune.serving import metrics
from prottune.serving.answers import INPUT_TYPES, NoNumber, Phrasing
from prottune.serving.batcher import CPU_TOKENS_PER_BATCH, Batcher
from prottune.serving.explaining import Attribute, Explainer, attributor
from prottune.serving.health import Health, difference
from prottune.serving.logs import note
from prottune.serving.questions import Question, questions_of_v1, questions_of_v2
from prottune.serving.sdk import InferRequest, Model, ModelNotReady
from prottune.serving.settings import MODEL_NAME, ServeConfig
from prottune.serving.waiting import num_tokens

if TYPE_CHECKING:
    from prottune.model.inference import Prediction, Predictor

_log = logging.getLogger(__name__)


class LocationPredictor(Model):  # type: ignore[misc]
    """Serves one model under the name `prottune`."""

    def __init__(
        self,
        predictor: Predictor,
        config: ServeConfig,
        model_version: str,
        *,
        attribute: Attribute | None = None,
        tokens_per_batch: int = CPU_TOKENS_PER_BATCH,
    ) -> None:
        """Without `attribute` nothing can be explained."""
        super().__init__(MODEL_NAME)
        self.is_ending = False
        """Whether the server is about to end: what is asked is answered, but nobody should begin to ask."""
        self.model_version = model_version
        self._predictor = predictor
        self._config = config
        self._phrasing = Phrasing(
            predictor.labels, tells_membrane=predictor.tells_membrane, model_version=model_version
        )
        self._batcher = Batcher(predictor.predict, config, tokens_per_batch=tokens_per_batch)
        self._explainer = Explainer(attribute, predictor.labels, config) if attribute else None
        self._health: Health | None = None

    @classmethod
    def from_folder(cls, folder: Path, config: ServeConfig, model_version: str) -> LocationPredictor:
        """Load a finished model folder; it is ready when it gives its own golden answers.

        Without a version, answers carry the start of the folder's digest.

        Raises: ArtifactError if the folder is damaged or answers differently from when it was made.
        """
        from prottune.artifacts import manifest_of
        from prottune.model.golden import read_golden
        from prottune.model.inference import TOKENS_PER_BATCH, Predictor

        predictor = Predictor.load(folder, config.precision)
        model = cls(
            predictor,
            config,
            model_version or manifest_of(folder).digest[:12],
            attribute=attributor(predictor, folder) if config.explain else None,
            tokens_per_batch={**TOKENS_PER_BATCH, "cpu": CPU_TOKENS_PER_BATCH}[predictor.device_type],
        )
        model.check(read_golden(folder))
        model.load()
        return model

    def check(self, golden: Sequence[Mapping[str, Any]]) -> None:
        """Ask the golden sequences and compare; `healthy` will ask the shortest of them again and again.

        Raises: ArtifactError if a probability differs by more than the settings allow.
        """
        allowed = self._config.max_probability_difference
        sequences = [entry["sequence"] for entry in golden]
        began = time.monotonic()
        answers = self._predictor.predict(sequences)
        self._batcher.speed_at_start.saw(sum(map(num_tokens, sequences)), time.monotonic() - began)
        for entry, answer in zip(golden, answers, strict=True):
            found = difference(self._predictor.labels, entry, answer)
            if not found <= allowed:  # no number is no right answer
                raise ArtifactError(
                    f"golden sequence {entry['accession']}: a probability differs by {found:.4f}, "
                    f"expected at most {allowed}; it cannot be served here"
                )
        shortest = min(golden, key=lambda entry: len(entry["sequence"]))
        self._health = Health(self._batcher, self._predictor.labels, shortest, allowed)

    @property
    def labels(self) -> tuple[str, ...]:
        """The locations, in the order of the probabilities."""
        return self._predictor.labels

    async def healthy(self) -> bool:
        """Whether to ask the model: it answers its golden sequence as it should, is not stuck, and its server
        is not about to end. Never raises."""
        if self.is_ending or not self.ready:
            return False
        return self._health is None or await self._health.is_good()

    async def predict(self, payload: Any, headers: dict[str, str] | None = None) -> Any:
        """Answer one request: V2 as `InferRequest`, V1 as parsed JSON or its bytes.

        Raises: InvalidInput for a wrong question; Overloaded, TooLate and TooMuch as `Batcher.ask` does;
            ModelNotReady while the model gives a wrong golden answer; NoNumber if its answer holds none.
        """
        if isinstance(payload, InferRequest):
            return self._phrasing.v2(payload, await self._answers(questions_of_v2(payload, self._config)))
        questions = questions_of_v1(payload, self._config)
        return self._phrasing.v1(questions, await self._answers(questions))

    async def explain(self, payload: Any, headers: dict[str, str] | None = None) -> Any:
        """Say which residues speak for an answer: V1's body, in which each protein may name a `location`.

        The deadline is one for the answers and their explanations.

        Raises: InvalidInput for a wrong question; Overloaded, before the model is asked, if enough others
            wait; TooLate as `Explainer.explain` does; NotImplementedError if explanations are switched off;
            else as `predict` does.
        """
        if self._explainer is None:
            raise NotImplementedError("explanations are switched off here (--explain)")
        questions = questions_of_v1(payload, self._config)
        self._explainer.check(questions)
        note(num_sequences=len(questions))
        until = time.monotonic() + self._config.request_seconds
        with self._explainer.place():
            answers = await self._ask(questions)
            attributions = await self._explainer.explain(
                [
                    (question.sequence, question.location or answer.location)
                    for question, answer in zip(questions, answers, strict=True)
                ],
                until - time.monotonic(),
            )
        return self._phrasing.v1_explanations(questions, answers, attributions)

    async def close(self) -> None:
        """Answer what was asked, end what is being explained, and be ready for nothing more."""
        self.stop()
        if self._explainer is not None:
            self._explainer.close()
        await self._batcher.close()

    def get_input_types(self) -> list[dict[str, Any]]:
        """V2 metadata: what goes in."""
        return INPUT_TYPES

    def get_output_types(self) -> list[dict[str, Any]]:
        """V2 metadata: what comes out."""
        return self._phrasing.output_types()

    async def _ask(self, questions: Sequence[Question]) -> list[Prediction]:
        """Ask a model that is not known to answer wrongly, and pass on nothing from it that is no number.

        Raises: ModelNotReady, NoNumber.
        """
        if self._health is not None and self._health.is_wrong and not await self._health.is_good():
            raise ModelNotReady(MODEL_NAME, "It gives a wrong answer to a protein whose answer is known.")
        answers = await self._batcher.ask([question.sequence for question in questions])
        for index, answer in enumerate(answers):
            if not math.isfinite(sum(answer.probabilities.tolist(), answer.membrane or 0.0)):
                _log.error("the model answered with what is no finite number")
                raise NoNumber(
                    f"sequence {index} (counted from 0): the model answered with what is no finite number"
                )
        return answers

    async def _answers(self, questions: Sequence[Question]) -> list[Prediction]:
        note(num_sequences=len(questions))
        began = time.monotonic()
        answers = await self._ask(questions)
        longest = max(len(question.sequence) for question in questions)
        metrics.REQUEST_SECONDS.labels(metrics.length_class(longest)).observe(time.monotonic() - began)
        metrics.count_answers(answers)
        return answers
