"""The training loop: epochs of optimizer steps, validation after each, the best weights kept.

It is the same for one process and for many: `Ranks` hides how many there are.

N proteins of a split, B of them in a rank's share of a step, O outputs of the model: its locations and, if it
has that output, the membrane's.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor, nn

from prottune.errors import DivergedError
from prottune.model.classifier import LocationModel
from prottune.model.packed import row_step_for
from prottune.training.adaptation import rest_frozen_parts, trained_weights
from prottune.training.batching import Integers, count_steps, fill_batches, work_of
from prottune.training.dealing import Step, deal, plan_epoch
from prottune.training.examples import Examples
from prottune.training.history import HistoryWriter
from prottune.training.keeping import NOBODY, Keeper
from prottune.training.losses import JointLoss, figures
from prottune.training.optimization import make_optimizer, rate_factor, set_rates
from prottune.training.ranks import Ranks
from prottune.training.settings import TrainConfig
from prottune.training.snapshots import (
    Outcome,
    Pace,
    Place,
    Snapshot,
    on_host,
    optimizer_tensors,
    put_optimizer_tensors,
)

_MAX_POINTS = 1000
"""About how many points of the training curve a run writes; a point is the mean since the one before."""

_log = logging.getLogger(__name__)


class Loop:
    """One training run as one rank sees it."""

    def __init__(
        self,
        *,
        model: LocationModel,
        train: Examples,
        validation: Examples,
        config: TrainConfig,
        ranks: Ranks,
        history: HistoryWriter,
        precision: torch.dtype,
        keeper: Keeper = NOBODY,
    ) -> None:
        self._model = model.to(ranks.device)
        self._shared: nn.Module = ranks.share_gradients(self._model, compress=config.compress_gradients)
        self._train, self._validation = train, validation
        self._config, self._ranks, self._history = config, ranks, history
        self._precision, self._keeper = precision, keeper
        self._optimizer = make_optimizer(self._model, config)
        self._loss = JointLoss(train, model.config.num_labels, config)
        self._num_steps = count_steps(train.num_tokens_N, config.tokens_per_batch, config.epochs)
        self._place, self._pace, self._outcome = Place(), Pace(), Outcome()

    def restore(self, snapshot: Snapshot) -> None:
        """Go on from a moment of a run with these settings, whatever its number of ranks."""
        self._model.load_state_dict(self._model.state_dict() | dict(snapshot.model))
        put_optimizer_tensors(self._optimizer, self._model, snapshot.optimizer)
        self._place, self._pace, self._outcome = snapshot.place, snapshot.pace, snapshot.outcome
        if self._ranks.world_size > 1:
            self._settle_exchange()

    def _settle_exchange(self) -> None:
        """Go through a backward pass for nothing.

        After the first one DDP arranges the exchange of gradients anew, and from three ranks on the order in
        which they are summed decides the last bits. The run that this one goes on from had that behind it.
        """
        self._shared.train()
        logits_BO = self._logits(self._shared, self._train, np.zeros(1, np.int64))
        torch.autograd.backward(logits_BO.sum() * 0)
        self._optimizer.zero_grad()

    def run(self) -> Outcome:
        """Train until the last epoch, or until patience ends.

        Raises: DivergedError, on every rank at the same step, if a loss or gradient is not finite; Stopped
            if the run was asked to end.
        """
        place = self._place
        self._border()
        while not place.ended:
            self._train_epoch(place.epoch)
            self._validate(place.epoch)
            place.ended = self._is_last(place.epoch)
            place.epoch, place.position = place.epoch + 1, 0
            self._border()
        self._keeper.at_end(place, self._snapshot)
        self._outcome.num_steps = place.step
        return self._outcome

    def _border(self) -> None:
        """Stand between two steps, where nothing is half done and random numbers start anew."""
        self._ranks.seed_generators(self._config.seed, self._place.step)
        self._keeper.at_border(self._place, self._snapshot)

    def _snapshot(self) -> Snapshot:
        return Snapshot(
            place=replace(self._place),
            outcome=replace(self._outcome, best=replace(self._outcome.best)),
            pace=replace(self._pace, seconds_before=self._pace.seconds()),
            model=trained_weights(self._model),
            optimizer=on_host(optimizer_tensors(self._optimizer, self._model)),
            history=self._history.so_far(),
        )

    def _is_last(self, epoch: int) -> bool:
        self._outcome.epochs_run = epoch
        best = self._outcome.best
        if self._config.patience and epoch - best.epoch >= self._config.patience:
            _log.info("no better validation loss since epoch %d: stopping early", best.epoch)
            return True
        return epoch == self._config.epochs

    def _train_epoch(self, epoch: int) -> None:
        """Take the steps of an epoch that are not done yet."""
        self._shared.train()
        place, config = self._place, self._config
        rest_frozen_parts(self._model, config)
        if not place.position:
            self._pace = Pace()
        point_every = max(1, self._num_steps // _MAX_POINTS)
        started = time.perf_counter()
        for step in self._plan(epoch)[place.position :]:
            factor = rate_factor(place.step, self._num_steps, config.warmup_share)
            set_rates(self._optimizer, factor)
            loss = self._learn(step)
            place.step += 1
            place.position += 1
            self._count(step.proteins, loss)
            if place.step % point_every == 0:
                self._write_point(config.learning_rate * factor)
            now = time.perf_counter()
            self._outcome.training_seconds += now - started
            started = now
            self._border()

    def _plan(self, epoch: int) -> list[Step]:
        return plan_epoch(
            self._train.num_tokens_N,
            tokens_per_batch=self._config.tokens_per_batch,
            tokens_per_pass=self._config.tokens_per_pass,
            seed=self._config.seed,
            epoch=epoch,
            world_size=self._ranks.world_size,
            hidden_size=self._model.config.hidden_size,
        )

    def _learn(self, step: Step) -> float:
        """Take one optimizer step on a global batch and return its loss, means over its proteins."""
        ranks = self._ranks
        self._optimizer.zero_grad()
        mine = step.passes[ranks.rank]
        # A rank without a share reads a short protein for nothing: else it could not exchange gradients.
        passes = mine or [self._train.num_tokens_N.argmin().reshape(1)]
        loss = torch.zeros((), device=ranks.device)
        for number, proteins in enumerate(passes, start=1):
            # Only the last pass exchanges gradients, so that a step has one exchange on every rank.
            with nullcontext() if number == len(passes) else ranks.keep_gradients(self._shared):
                logits_BO = self._logits(self._shared, self._train, proteins)
                part = bool(mine) * self._loss.part(logits_BO, proteins, step.proteins)
                # The wrapper takes the mean over ranks; the loss is a sum over them.
                torch.autograd.backward(part * ranks.world_size)
            loss += part.detach()
        losses = ranks.gather(loss)
        norm = nn.utils.clip_grad_norm_(self._model.parameters(), self._config.max_grad_norm)
        self._stop_unless_finite(losses, float(norm))
        self._optimizer.step()
        return float(losses.sum())

    def _logits(self, model: nn.Module, examples: Examples, proteins: Integers) -> Tensor:
        device = self._ranks.device
        batch = examples.batch(proteins, row_step_for(device, self._precision)).to(device)
        half = self._precision != torch.float32
        with torch.autocast(device.type, dtype=torch.bfloat16, enabled=half):
            logits_BO: Tensor = model(batch)
        return logits_BO

    def _stop_unless_finite(self, losses: Tensor, norm: float) -> None:
        """Refuse to go on before the step touches the weights; all ranks see the same numbers."""
        if bool(losses.isfinite().all()) and np.isfinite(norm):
            return
        guilty = [rank for rank, loss in enumerate(losses.tolist()) if not np.isfinite(loss)]
        where = f"rank {', '.join(map(str, guilty))}" if guilty else "all ranks"
        what = f"the loss is {losses[guilty[0]].item()}" if guilty else f"the gradient's norm is {norm}"
        raise self._diverged(f"step {self._place.step + 1}, {where}: {what}")

    def _diverged(self, what: str) -> DivergedError:
        config = self._config
        return DivergedError(
            f"training diverged at {what}, expected a finite number; try a lower learning_rate (now "
            f"{config.learning_rate:g}; head_learning_rate {config.head_learning_rate:g}), a longer "
            f"warmup_share (now {config.warmup_share:g}), or precision=fp32"
        )

    def _count(self, batch: Integers, loss: float) -> None:
        num_tokens = int(self._train.num_tokens_N[batch].sum())
        self._outcome.num_tokens += num_tokens
        self._pace.tokens += num_tokens
        self._pace.proteins += len(batch)
        self._pace.steps += 1
        self._pace.loss += loss

    def _write_point(self, learning_rate: float) -> None:
        pace = self._pace
        self._history.point(
            {
                "step": self._place.step,
                "train/loss": pace.loss / pace.steps,
                "train/learning_rate": learning_rate,
                "train/tokens_per_second": pace.tokens / pace.seconds(),
                "train/proteins_per_step": pace.proteins / pace.steps,
            }
        )
        self._pace = Pace()

    def _validate(self, epoch: int) -> None:
        """Measure on the validation proteins; every rank sees all logits, so all decide the same."""
        logits_NO = self._validation_logits()
        found = figures(logits_NO, self._validation, self._model.config.num_labels)
        for name, value in found.items():
            if not np.isfinite(value):
                what = f"the {name.replace('_', ' ')} is {value}"
                raise self._diverged(f"step {self._place.step}, validation after epoch {epoch}: {what}")
        measured = {f"validation/{name}": value for name, value in found.items()}
        self._history.point({"step": self._place.step, "epoch": epoch, **measured})
        best = self._outcome.best
        if (loss := found["calibrated_loss"]) < best.loss:
            best.epoch, best.loss, best.accuracy, best.logits_NO = epoch, loss, found["accuracy"], logits_NO
            if self._ranks.leads:
                best.weights = trained_weights(self._model)

    @torch.no_grad()
    def _validation_logits(self) -> Tensor:
        """Logits [N, O] of all validation proteins; each rank works out its share, once each."""
        self._model.eval()
        ranks, examples = self._ranks, self._validation
        logits_NO = torch.zeros(len(examples), self._model.num_outputs, device=ranks.device)
        for proteins in self._validation_passes():
            logits_NO[torch.from_numpy(proteins)] = self._logits(self._model, examples, proteins)
            self._border()  # as after the epoch's last step: validation changes nothing, and may be left
        return ranks.sum(logits_NO)

    def _validation_passes(self) -> Sequence[Integers]:
        """This rank's share of the validation proteins, in passes as long as those of training."""
        num_tokens_N, ranks, config = self._validation.num_tokens_N, self._ranks, self._config
        work_N = work_of(num_tokens_N, self._model.config.hidden_size)
        mine = deal(np.arange(len(num_tokens_N)), work_N, ranks.world_size)[ranks.rank]
        limit = config.tokens_per_pass or config.tokens_per_batch // ranks.world_size
        return fill_batches(mine, num_tokens_N, limit)
