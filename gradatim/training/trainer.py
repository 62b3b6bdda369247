"""Training of one stage: the loop over batches, optimizer steps, checkpoints, logging and validation.

``StageTrainer.fit`` starts from the model on disk that the stage before wrote, so that a continued and a resumed run
are identical, or from a checkpoint of its own after an interruption. With the same processor and number of threads the
weights are reproduced bit for bit. The data are selected by ``schedule``, the loss is an ``objective``, and evaluation
is a layer above.

Several processes train one model on the same global batches: each computes its share of the lines of a step and divides
by the counts of the whole step, so that the added gradients are those of one process. A step has two all-reduces: the
counts, then one vector of gradients, sums of the loss, and the votes to stop and to save. Rank 0 writes all files.
"""

from __future__ import annotations

import hashlib
import math
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from ..errors import Stopped, TrainingDiverged, WorkFailed
from ..model.architecture import create, freeze, trainable_parameters
from ..model.hardware import (
    device,
    forked_random_state,
    keep_memory,
    quiet,
    random_state,
    reproducible,
)
from ..model.load import (
    adapter_names,
    enable_gradient_checkpointing,
    open_for_training,
    save_adapter,
    start_from_base,
)
from ..model.settings import ModelSettings, TrainSettings
from ..model.tokenizer import Encoded
from ..model.window_attention import select_attention
from ..processes import SINGLE, Processes
from ..random_streams import dropout_seed
from ..record import Metrics, settle, write_folder
from ..stage import Event, Events, Examination, Fitted, Stage, StageSpec, ignore_events
from .batches import (
    Batch,
    Packed,
    Position,
    Windows,
    fitting_rows,
    make_sampler,
    make_second_answers,
    paired_rows,
    refuse_windows,
    row_tokens,
    share,
)
from .checkpoint import (
    State,
    gathered_weights,
    load_checkpoint,
    load_optimizers,
    save_auxiliary,
    save_checkpoint,
    save_optimizers,
    take_snapshot,
)
from .line_selection import LineSelection
from .losses import make_losses, tensors
from .objective import OBJECTIVES, LossContext, check_objective, make_loss
from .optimizers import make_lr_schedule, make_optimizers
from .sharding import gathered, shard, skeleton, unsharded_parameters
from .weight_averaging import WeightAverage


@dataclass(frozen=True)
class StageTrainer:
    """Implementation of ``stage.Trainer``. ``seed`` initialises the weights; all ``processes`` call ``fit`` alike."""

    tokenizer: PreTrainedTokenizerFast
    samples: Encoded
    validation: Encoded
    metrics: Metrics
    seed: int
    model: ModelSettings
    train: TrainSettings
    examination: Examination | None = None
    processes: Processes = SINGLE

    def fit(self, stage: Stage, folder: Path, previous: Path | None, events: Events = ignore_events) -> Fitted:
        """See ``stage.Trainer``. Raises ``TrainingDiverged``; the last good checkpoint stays."""
        if self.model.start == "base" and stage.index == 0:
            previous = None
        keep_memory()
        try:
            # Dropout uses the global generator: seeded per stage, so that it does not depend on earlier stages.
            with reproducible(), forked_random_state():
                torch.manual_seed(int(stage.seed))
                return _TrainingLoop(self, stage, folder, previous, events).run()
        finally:
            self.metrics.close()

    def initial(self, previous: Path | None, target: torch.device | None = None) -> PreTrainedModel:
        """The initial model of a stage: the model of the stage before, the pretrained base, or new weights.

        ``target``: the device that it is moved to, by default that of the training.
        """
        model: PreTrainedModel
        if previous is not None:
            model = open_for_training(previous / "model", self.model)
        elif self.model.base is not None:
            model = start_from_base(self.model, self.tokenizer, seed=self.seed)
        else:
            special = {
                "pad_token_id": int(self.tokenizer.pad_token_id),
                "eos_token_id": int(self.tokenizer.eos_token_id),
            }
            model = create(
                self.model.preset,
                vocabulary=len(self.tokenizer),
                context=self.model.context_length,
                special=special,
                seed=self.seed,
            )
        if self.model.base is None:
            freeze(model)
        if self.model.gradient_checkpointing:
            enable_gradient_checkpointing(model)
        select_attention(model, self.train.max_length)
        on_device: Any = model.train()
        return cast(PreTrainedModel, on_device.to(device() if target is None else target))

    @property
    def sharded(self) -> bool:
        """Whether the model is divided among the processes."""
        return self.model.shard and self.processes.size > 1


class _TrainingLoop:
    """The state of the training loop of one stage."""

    def __init__(
        self, trainer: StageTrainer, stage: Stage, folder: Path, previous: Path | None, events: Events
    ) -> None:
        self.trainer, self.stage, self.folder, self.listener = trainer, stage, folder, events
        self.settings, self.processes = trainer.train, trainer.processes
        self.stop_request: Stopped | None = None
        self.votes = Votes()
        objective = stage.spec.objective or self.settings.objective
        check_objective(objective, self.settings)
        self.requirements = OBJECTIVES.get(objective).requirements(self.settings)
        self.batcher, self.dropped = _batcher(trainer, stage, objective, self.events)
        self.model = trainer.initial(previous, torch.device("cpu") if trainer.sharded else None)
        if trainer.sharded:  # from the CPU, a layer at a time: the whole model may be larger than the device
            shard(self.model, self.processes)
        context = LossContext(
            self.model,
            trainer.tokenizer,
            self.settings,
            self.batcher,
            len(trainer.samples),
            folder,
            self.events,
            previous,
            self.processes,
            trainer.sharded,
        )
        # A loss may read the model at the start of the stage (a reference model), so a checkpoint is loaded afterwards.
        self.loss = make_loss(objective, context)
        self.parameters = trainable_parameters(self.model)
        self.total_parameters = sum(parameter.numel() for parameter in self.model.parameters())
        self.average = self._average()
        if self.loss.auxiliary is not None:
            self.model.add_module("auxiliary", self.loss.auxiliary)
        self.weights = torch.tensor([term.weight for term in self.loss.terms], device=device())
        self.optimizers = make_optimizers(self.model, self.settings.optimizer)
        no_sums = (0.0, 0.0) * len(self.loss.terms)
        self.state = State(0, 0, self.batcher.start, 0.0, 0.0, no_sums)
        self.resumed_at, self.saved_at = 0, time.monotonic()
        if self.processes.is_main:
            settle(folder / "checkpoint")
        self.processes.broadcast()  # the others read what rank 0 has settled
        checkpointed = load_checkpoint(folder / "checkpoint", self.model, self.optimizers, self.average)
        if checkpointed is not None:
            self.state, self.resumed_at = checkpointed, checkpointed.step
            if len(self.state.pending) != len(no_sums):  # written by a version with other logged terms
                self.state = replace(self.state, pending=no_sums)
        elif previous is not None and not self.settings.reset_optimizer:
            load_optimizers(previous / "optimizer", self.optimizers)
        self._check_agreement("start from", self.state.step)
        if self.processes.is_main:
            trainer.metrics.rewind(stage.cycle, stage.index, self.state.step or -1)

    def run(self) -> Fitted:
        """Train until the token budget is spent; save the state when ``Stopped`` is raised."""
        budget = self.stage.spec.tokens
        self.events(Event("start", self._task, self.state.tokens, budget, unit="tokens"))
        schedule = make_lr_schedule(self.settings.lr_scheduler)
        self.started = self.saved_at = time.monotonic()
        before = self.state.seconds
        try:
            self._validate_at_start()
            for batches, position in self._batches():
                if self.state.tokens >= budget:
                    break
                factor = schedule(self._progress(), self._progress(self._loss_tokens(batches)))
                self._step(batches, position, factor, before + time.monotonic() - self.started)
                done = min(self.state.tokens, budget)
                self.events(Event("advance", self._task, done, budget, unit="tokens", loss=self._recent_loss))
                self._stop_if_agreed()
            self._agree_at_end()
        except Stopped:
            self._save()
            raise
        self._save()
        weights = self._finish()
        self.events(Event("finish", self._task, budget, budget))
        return Fitted(
            self.state.step,
            self.state.tokens,
            self.parameters,
            self.dropped,
            self.state.loss,
            round(before + time.monotonic() - self.started, 3),
            weights,
            self.resumed_at,
            0 if self.loss.auxiliary is None else sum(value.numel() for value in self.loss.auxiliary.parameters()),
            self.total_parameters,
        )

    def events(self, event: Event) -> None:
        """Pass ``event`` on. Of several processes all stop after the same step: a ``Stopped`` becomes a vote."""
        try:
            self.listener(event)
        except Stopped as error:
            if self.processes.size == 1:
                raise
            self.stop_request = error

    def _stop_if_agreed(self) -> None:
        """Raise ``Stopped`` when a process voted for it in the last all-reduce."""
        if self.votes.stop:
            raise self.stop_request or Stopped("stopped")

    def _agree_at_end(self) -> None:
        """The votes after the last step, in an exchange of their own."""
        vote = np.array([float(self.stop_request is not None)])
        self.votes = Votes(stop=bool(self.processes.add_values(vote)[0]))
        self._stop_if_agreed()

    @property
    def _task(self) -> str:
        return f"train {self.stage.spec.name}"

    @property
    def _recent_loss(self) -> float:
        """The mean loss since the last row of the log, or that of the row if there is no step since."""
        return self._means()[0] if any(self.state.pending[1::2]) else self.state.loss

    def _progress(self, ahead: int = 0) -> float:
        """Progress of the learning-rate schedule ``ahead`` tokens from now, through the stage or the whole run."""
        tokens = self.state.tokens + ahead
        if self.settings.reset_optimizer:
            return tokens / self.stage.spec.tokens
        return (self.stage.first_token + tokens) / self.stage.run_tokens

    def _average(self) -> WeightAverage | None:
        """The average of the weights, None in a stage that does not contain the end of a learning-rate schedule."""
        last = self.stage.first_token + self.stage.spec.tokens >= self.stage.run_tokens
        if self.settings.swa_start is None or not (self.settings.reset_optimizer or last):
            return None
        return WeightAverage(self.model, self.settings.swa_start)

    def _averaged(self) -> AbstractContextManager[None]:
        """A block in which the model has its averaged weights, once there are any."""
        return nullcontext() if self.average is None else self.average.applied()

    def _loss_tokens(self, batches: Sequence[Batch]) -> int:
        """The loss tokens of one optimizer step."""
        return sum(batch.loss_tokens(self.requirements.prompt_loss) for batch in batches)

    def _batches(self) -> Iterator[tuple[Sequence[Batch], Position]]:
        """The batches of each optimizer step, with the position after the last of them."""
        stream = self.batcher.stream(self.state.position)
        select = LineSelection(self.model, self.settings) if self.settings.candidates > 1 else None
        while group := list(islice(stream, self.settings.gradient_accumulation_steps * self.settings.candidates)):
            batches = [batch for batch, _ in group]
            yield batches if select is None else select(batches), group[-1][1]

    def _step(self, batches: Sequence[Batch], position: Position, factor: float, seconds: float) -> None:
        """One optimizer step on ``batches``; ``factor`` scales the learning rates."""
        if self.processes.size > 1:  # dropout of each rank's own lines, independent of earlier steps
            torch.manual_seed(dropout_seed(int(self.stage.seed), self.state.step, self.processes.rank))
        rng_state = random_state()
        sums, counts = self._gradient(batches)
        # The loss of these weights was finite and below the ceiling: a checkpoint never holds a diverged model.
        if self.votes.save:
            self._save(rng_state)
        norm = float(
            gathered(torch.nn.utils.clip_grad_norm_(self.model.parameters(), self.settings.max_grad_norm or math.inf))
        )
        if not math.isfinite(norm):
            self._diverged(norm)
        self.optimizers.step(factor)
        previous, pending = self.state.tokens, self.state.pending
        sums_and_counts = [value for pair in zip(sums.tolist(), counts.tolist(), strict=True) for value in pair]
        self.state = State(
            self.state.step + 1,
            previous + self._loss_tokens(batches),
            position,
            self.state.loss,
            seconds,
            tuple(old + new for old, new in zip(pending, sums_and_counts, strict=True)),
        )
        if self.average is not None:
            self.average.update(self._progress())
        self._log(previous, factor, norm)

    def _gradient(self, batches: Sequence[Batch]) -> tuple[torch.Tensor, torch.Tensor]:
        """Accumulate the gradient of the mean over all ``batches``; return the sums and counts of every term.

        Counts need no forward pass, so each batch is divided by the total count: the gradient is that of one large
        batch, and added over several processes it is that of one process.
        """
        own = share(batches, self.processes.rank, self.processes.size)
        counts = torch.stack([self.loss.counts(batch) for batch in own]).sum(dim=0)
        self.processes.add(counts)
        sums = torch.zeros_like(counts)
        for batch in own:
            batch_sums = self.loss.sums(batch)
            loss = (batch_sums / counts.clamp(min=1e-9) * self.weights).sum()
            if loss.requires_grad or self.processes.size == 1:  # a share may have no pairs
                # FSDP averages the gradients of sharded parameters over the processes.
                scale = self.processes.size if self.trainer.sharded else 1
                (loss * scale).backward()  # type: ignore[no-untyped-call]
            sums += batch_sums.detach()
        due = time.monotonic() - self.saved_at > self.settings.checkpoint_seconds and self.state.step > 0
        self.votes = Votes(self.stop_request is not None, due and self.processes.is_main)
        if self.processes.size > 1:
            self.votes = add_gradients(self.processes, self.model, sums, self.votes)
        self._check(sums / counts.clamp(min=1e-9))
        return sums, counts

    def _check(self, means: torch.Tensor) -> None:
        """Raise ``TrainingDiverged`` when the loss is not finite or a bounded term exceeds the ceiling."""
        value = float((means * self.weights).sum())
        bounded = [mean for mean, term in zip(means.tolist(), self.loss.terms, strict=True) if term.bounded]
        if not math.isfinite(value) or max(bounded, default=0.0) > self._ceiling:
            self._diverged(value)

    @property
    def _ceiling(self) -> float:
        """Upper bound of the loss in nats per token: three times that of a uniform prediction, plus 3."""
        return 3 * math.log(len(self.trainer.tokenizer)) + 3

    def _diverged(self, value: float) -> None:
        """Raise ``TrainingDiverged`` for the loss or gradient norm ``value``."""
        checkpoint_folder = self.folder / "checkpoint"
        raise TrainingDiverged(
            "the loss or its gradient exploded",
            where=f"stage {self.stage.spec.name}, step {self.state.step}",
            given=value,
            hint="a lower train.optimizer.learning_rate or train.max_grad_norm: 1, with another --out"
            + (f"; the last good checkpoint is kept in {checkpoint_folder}" if checkpoint_folder.exists() else ""),
        )

    def _validate_at_start(self) -> None:
        """Append the validation losses before the first step of the run."""
        if self.settings.evaluations_per_stage and not (self.state.step or self.stage.first_token):
            self._append({**self._row(), **self._validate()})

    def _row(self) -> dict[str, Any]:
        """The position of a row of metrics.jsonl."""
        return {
            "cycle": self.stage.cycle,
            "stage": self.stage.index,
            "name": self.stage.spec.name,
            "step": self.state.step,
            "tokens": self.state.tokens,
            "run_tokens": self.stage.first_token + self.state.tokens,
        }

    def _log(self, previous: int, factor: float, norm: float) -> None:
        """Append rows to metrics.jsonl; none of their values depends on the clock."""
        row = self._row()
        finished = self.state.tokens >= self.stage.spec.tokens
        if self.state.step % self.settings.logging_steps == 0 or finished:
            loss, term_means = self._means()
            self.state = replace(self.state, loss=loss, pending=(0.0,) * len(self.state.pending))
            rate = self.settings.optimizer.learning_rate * factor
            self._append({**row, "loss": loss, "learning_rate": rate, "gradient_norm": norm, **term_means})
        interval = self.stage.spec.tokens / max(self.settings.evaluations_per_stage, 1)
        if self.settings.evaluations_per_stage and (
            int(previous / interval) < int(self.state.tokens / interval) or finished
        ):
            self._append({**row, **self._validate()})
        if self.trainer.examination is not None and not finished:
            self._examine(self.trainer.examination, row, row["run_tokens"] - self.state.tokens + previous)

    def _append(self, row: Mapping[str, Any]) -> None:
        if self.processes.is_main:
            self.trainer.metrics.append(row)

    def _examine(self, examination: Examination, row: Mapping[str, Any], previous: int) -> None:
        """Append the counts of an evaluation when a multiple of ``examination.every`` lies after ``previous`` tokens.

        The suites read a copy of the model from disk, with a random state of their own, and their time is no training
        time. Of several processes rank 0 alone has an examination.
        """
        if previous // examination.every == row["run_tokens"] // examination.every:
            return
        started, target = time.monotonic(), self.folder / "examined"
        with self._averaged():
            write_folder(target, self._write_model)
        with forked_random_state():
            self.trainer.metrics.append({**row, "evaluations": examination.evaluate(target)})
        shutil.rmtree(target)
        self.started += time.monotonic() - started

    def _means(self) -> tuple[float, dict[str, float]]:
        """The mean loss since the last row, and the mean of each named term that has counts."""
        sums, counts = self.state.pending[::2], self.state.pending[1::2]
        means = [total / max(count, 1e-9) for total, count in zip(sums, counts, strict=True)]
        terms = list(zip(self.loss.terms, means, counts, strict=True))
        named = {term.name: mean for term, mean, count in terms if term.name is not None and count}
        return sum(term.weight * mean for term, mean, _ in terms), named

    def _validate(self) -> dict[str, float]:
        """Mean loss per token, of all tokens and of answers, over the fixed validation samples."""
        with torch.no_grad(), self._averaged():
            return self._validation_losses()

    def _validation_losses(self) -> dict[str, float]:
        """The losses of ``_validate`` with the present weights."""
        self.model.eval()
        sums = np.zeros(4)
        token_losses = make_losses(self.model, self.settings)
        batches = _validation_batches(self.trainer, self.settings)
        if not self.trainer.sharded:  # each forward pass of a sharded model needs all processes
            batches = islice(batches, self.processes.rank, None, self.processes.size)
        for batch in batches:
            inputs, labels, answer, *context = tensors(batch)
            losses = token_losses(inputs, labels, *context).double()
            real = labels != -100
            sums += [
                float(losses.sum()),
                int(real.sum()),
                float(losses[answer & real].sum()),
                int((answer & real).sum()),
            ]
        self.model.train()
        if not self.trainer.sharded:
            sums = self.processes.add_values(sums)
        if not np.isfinite(sums).all():
            self._diverged(float(sums[0]))
        return {
            "validation_loss": sums[0] / max(sums[1], 1),
            "validation_answer_loss": sums[2] / max(sums[3], 1),
        }

    def _save(self, rng_state: Mapping[str, torch.Tensor] | None = None) -> None:
        """Write a checkpoint. ``rng_state``: see ``save_checkpoint``."""
        if not self.processes.is_main and not self.trainer.sharded:
            return
        snapshot = take_snapshot(self.model, self.optimizers, self.average, rng_state)
        if self.processes.is_main:
            self.trainer.metrics.close()
            save_checkpoint(self.folder / "checkpoint", snapshot, self.state)
        self.saved_at = time.monotonic()

    def _finish(self) -> str:
        """Write the trained model, and the optimizer state that the next stage continues from; return the digest of the
        weights.

        The checkpoint is kept until the run has recorded the stage.
        """
        self.trainer.metrics.close()
        self.model.eval()
        if self.loss.auxiliary is not None:
            del self.model.auxiliary
        with self._averaged():
            return self._write_results()

    def _write_results(self) -> str:
        """The files and the digest of ``_finish`` with the present weights."""
        digest = weights_digest(self.model)
        self._check_agreement("end with", digest)
        weights = gathered_weights(self.model) if self.trainer.sharded else {}
        state = {} if self.settings.reset_optimizer else self.optimizers.tensors()
        if self.processes.is_main:
            if self.loss.auxiliary is not None:
                save_auxiliary(self.loss.auxiliary, self.folder / "auxiliary.safetensors")
            write_folder(self.folder / "model", partial(self._write_model, weights=weights))
            if not self.settings.reset_optimizer:
                write_folder(self.folder / "optimizer", partial(save_optimizers, state))
        return digest

    def _write_model(self, target: Path, weights: Mapping[str, torch.Tensor] | None = None) -> None:
        """Write the model, or its adapter, and the tokenizer; the auxiliary modules are no part of it.

        ``weights``: those of a sharded model, gathered.
        """
        auxiliary = getattr(self.model, "auxiliary", None)
        if auxiliary is not None:
            del self.model.auxiliary
        try:
            with quiet():
                if weights:
                    skeleton(self.model).save_pretrained(target, state_dict=dict(weights))
                elif adapter_names(self.model) is None:
                    self.model.save_pretrained(target)
                else:
                    save_adapter(self.model, target)
                self.trainer.tokenizer.save_pretrained(target)
        finally:
            if auxiliary is not None:
                self.model.add_module("auxiliary", auxiliary)

    def _check_agreement(self, verb: str, value: object) -> None:
        """Raise ``WorkFailed`` unless all processes have the same ``value``: a step, or a digest of the weights."""
        values = self.processes.gather(value)
        if len(set(values)) > 1:
            differing = next(rank for rank, other in enumerate(values) if other != values[0])
            raise WorkFailed(
                f"the processes {verb} different weights",
                where=f"stage {self.stage.spec.name}, process {differing}",
                given=f"{values[differing]}; process 0 has {values[0]}",
                hint="one folder for all processes, on a file system that they share, and the same software on all of "
                "them; the last checkpoint is kept",
            )


@dataclass(frozen=True)
class Votes:
    """The decisions that all processes take together at a step: to stop after it, and to save before it."""

    stop: bool = False
    save: bool = False


def add_gradients(processes: Processes, model: PreTrainedModel, sums: torch.Tensor, votes: Votes) -> Votes:
    """Add the gradients of ``model`` and the ``sums`` of the loss over all processes, in place; the common votes.

    One fp32 vector: gradients in the order of the parameters, for each parameter the number of processes with a
    gradient, sums, votes. A parameter without a gradient anywhere keeps none, so that the optimizers skip it.
    """
    parameters = unsharded_parameters(model)
    present = [float(parameter.grad is not None) for parameter in parameters]
    gradients = [torch.zeros_like(p) if p.grad is None else p.grad for p in parameters]
    tail = torch.tensor([*present, float(votes.stop), float(votes.save)], device=sums.device)
    vector = torch.cat([*(gradient.reshape(-1).float() for gradient in gradients), tail, sums.float()])
    processes.add(vector)
    sizes = [parameter.numel() for parameter in parameters]
    *added, counts, total = vector.split([*sizes, len(tail), len(sums)])
    *counted, stop, save = counts.tolist()
    for parameter, gradient, count in zip(parameters, added, counted, strict=True):
        parameter.grad = gradient.view_as(parameter).to(parameter.dtype) if count else None
    sums.copy_(total)
    return Votes(bool(stop), bool(save))


def weights_digest(model: PreTrainedModel) -> str:
    """SHA-256 over the names and bytes of all parameters, sorted by name; of a LoRA adapter only its own parameters."""
    digest = hashlib.sha256()
    adapter = adapter_names(model)
    for name, value in sorted(model.named_parameters()):
        if adapter is not None and name not in adapter:
            continue
        digest.update(name.encode())
        whole = gathered(value.detach())
        digest.update(whole.cpu().contiguous().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def _batcher(trainer: StageTrainer, stage: Stage, objective: str, events: Events) -> tuple[Windows | Packed, int]:
    """The batcher of the stage, and the number of samples that are longer than a line."""
    settings = trainer.train
    if settings.batching == "random_crops":
        refuse_windows(stage)
        return Windows(trainer.samples, stage, settings.batch_size, settings.max_length), 0
    requirements = OBJECTIVES.get(objective).requirements(settings)
    rows, second_answers = stage.rows, make_second_answers(objective, requirements, trainer.samples)
    if second_answers is not None and requirements.pairs_only:
        rows = paired_rows(second_answers, rows)
        if len(rows) < len(stage.rows):
            text = f"{len(stage.rows) - len(rows)} of {len(stage.rows)} samples have no second answer and are left out"
            events(Event("note", f"train {stage.spec.name}", text=text))
    rows, dropped = fitting_rows(trainer.samples, rows, settings.max_length, second_answers)
    packed = _packed(trainer, trainer.samples, replace(stage, rows=rows), settings.block_diagonal_attention)
    tokens = row_tokens(requirements, settings, trainer.samples, rows, second_answers)
    sampler = make_sampler(stage, rows, tokens, settings.batch_size * settings.max_length)
    return replace(packed, second_answers=second_answers, sampler=sampler), dropped


def _packed(trainer: StageTrainer, encoded: Encoded, stage: Stage, isolate: bool) -> Packed:
    """The ``Packed`` batcher of ``encoded`` with the settings of the trainer."""
    pad = int(trainer.tokenizer.pad_token_id)
    return Packed(encoded, stage, trainer.train.batch_size, trainer.train.max_length, pad, isolate)


def _validation_batches(trainer: StageTrainer, settings: TrainSettings) -> Iterator[Batch]:
    """The validation samples once, batched as in training; packed samples longer than a line are left out."""
    stage = Stage(StageSpec("validation", (1.0,), 1, order="sorted"), 0, np.arange(len(trainer.validation)), 0, 0, 1)
    if settings.batching == "random_crops":
        return Windows(trainer.validation, stage, settings.batch_size, settings.max_length).one_pass()
    rows, _ = fitting_rows(trainer.validation, stage.rows, settings.max_length)
    return _packed(trainer, trainer.validation, replace(stage, rows=rows), settings.block_diagonal_attention).one_pass()
