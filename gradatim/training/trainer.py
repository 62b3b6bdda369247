"""How does a student learn one stage?

``Learner.fit`` is the training loop: batches of one shape, the sums of a loss, clipped gradients, one
or two optimizers. It begins from the model the stage before left on disk, so that a run which goes on and a run which
is resumed take the same road, and from a checkpoint of its own when it was killed. On the same processor and thread
count the weights come out the same, bit for bit. It does not choose the data, knows no loss (``objective``) and does
not evaluate.
"""

from __future__ import annotations

import hashlib
import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from ..errors import Stopped, TrainingDiverged
from ..model.architecture import create, freeze, trainable_parameters
from ..model.hardware import attention, device, keep_memory, quiet, reproducible
from ..model.load import adapter_names, enable_gradient_checkpointing, open_for_training, save_adapter, start_from_base
from ..model.settings import ModelSettings, TrainSettings
from ..model.tokenizer import Encoded
from ..record import Metrics, write_folder
from ..stage import Event, Events, Fitted, Stage, StageSpec, ignore_events
from . import checkpoint
from .batches import Batch, Packed, Position, Windows, fitting_rows
from .forward import make_losses, tensors
from .objective import OBJECTIVES, LossContext, check_objective, make_loss
from .optimizers import make_optimizers, make_shape
from .pairs import make_beside, paired_rows, row_tokens
from .weighted_sampling import draws_of, refuse_windows

__all__ = ["Learner", "weights_digest"]


@dataclass(frozen=True)
class Learner:
    """A student that is trained by this process. ``seed`` draws its first weights."""

    tokenizer: PreTrainedTokenizerFast
    samples: Encoded
    validation: Encoded
    metrics: Metrics
    seed: int
    model: ModelSettings
    train: TrainSettings

    def fit(self, stage: Stage, folder: Path, previous: Path | None, events: Events = ignore_events) -> Fitted:
        """See ``stage.Student``. Raises ``TrainingDiverged`` with the last good checkpoint kept."""
        if self.model.start == "base" and stage.index == 0:
            previous = None
        keep_memory()
        try:
            # Dropout draws from the global state: that of a stage hangs on its seed, not on what was drawn before.
            with reproducible(), torch.random.fork_rng(devices=[]):
                torch.manual_seed(int(stage.seed))
                return _Fit(self, stage, folder, previous, events).run()
        finally:
            self.metrics.close()

    def initial(self, previous: Path | None) -> PreTrainedModel:
        """The model a stage starts from: the one before it left, the pretrained base, or new weights."""
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
                context=self.model.context,
                special=special,
                seed=self.seed,
            )
        if self.model.base is None:
            freeze(model)
        if self.model.gradient_checkpointing:
            enable_gradient_checkpointing(model)
        model.set_attn_implementation(attention(self.train.length))
        on_device: Any = model.train()
        return cast(PreTrainedModel, on_device.to(device()))


class _Fit:
    """One stage being learnt: what the loop carries from step to step."""

    def __init__(self, learner: Learner, stage: Stage, folder: Path, previous: Path | None, events: Events) -> None:
        self.learner, self.stage, self.folder, self.events = learner, stage, folder, events
        self.settings = learner.train
        objective = stage.spec.objective or self.settings.objective
        check_objective(objective, self.settings)
        self.requirements = OBJECTIVES.get(objective).requirements(self.settings)
        self.batcher, self.dropped = _batcher(learner, stage, objective, events)
        self.model = learner.initial(previous)
        context = LossContext(
            self.model, learner.tokenizer, self.settings, self.batcher, len(learner.samples), folder, events, previous
        )
        # A loss may read the model at the start of the stage (a reference model), so a checkpoint is loaded afterwards.
        self.loss = make_loss(objective, context)
        self.parameters = trainable_parameters(self.model)
        if self.loss.auxiliary is not None:
            self.model.add_module("auxiliary", self.loss.auxiliary)
        self.weights = torch.tensor([term.weight for term in self.loss.terms], device=device())
        self.optimizers = make_optimizers(self.model, self.settings.optimizer)
        nothing = (0.0, 0.0) * len(self.loss.terms)
        self.state = checkpoint.State(0, 0, self.batcher.start, 0.0, 0.0, nothing)
        self.resumed_at = 0
        found = checkpoint.load(folder / "checkpoint", self.model, self.optimizers)
        if found is not None:
            self.state, self.resumed_at = found, found.step
        elif previous is not None and not self.settings.restart:
            checkpoint.load_optimizers(previous / "optimizer", self.optimizers)
        learner.metrics.rewind(stage.cycle, stage.index, self.state.step)

    def run(self) -> Fitted:
        budget = self.stage.spec.tokens
        self.events(Event("start", self._task, self.state.tokens, budget))
        shape = make_shape(self.settings.shape)
        clock = self.saved = time.monotonic()
        before = self.state.seconds
        try:
            for batches, position in self._batches():
                if self.state.tokens >= budget:
                    break
                self._step(batches, position, shape(self._progress()), before + time.monotonic() - clock)
                self.events(Event("advance", self._task, min(self.state.tokens, budget), budget))
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
            round(before + time.monotonic() - clock, 3),
            weights,
            self.resumed_at,
        )

    @property
    def _task(self) -> str:
        return f"train {self.stage.spec.name}"

    def _progress(self) -> float:
        """How far the learning-rate shape has come: in the stage, or in the whole run."""
        if self.settings.restart:
            return self.state.tokens / self.stage.spec.tokens
        return (self.stage.first_token + self.state.tokens) / self.stage.run_tokens

    def _batches(self) -> Iterator[tuple[Sequence[Batch], Position]]:
        """The batches of each optimizer step, with the position after the last of them."""
        stream = self.batcher.stream(self.state.position)
        while some := list(islice(stream, self.settings.accumulate)):
            yield [batch for batch, _ in some], some[-1][1]

    def _step(self, batches: Sequence[Batch], position: Position, factor: float, seconds: float) -> None:
        chance = torch.get_rng_state()
        sums, counts = self._gradient(batches)
        # The loss has just judged the weights of the last step, so what is saved here is known to be good.
        if time.monotonic() - self.saved > self.settings.checkpoint_seconds and self.state.step:
            self._save(chance)
        norm = float(torch.nn.utils.clip_grad_norm_(self.model.parameters(), self.settings.clip or math.inf))
        if not math.isfinite(norm):
            self._diverged(norm)
        self.optimizers.step(factor)
        previous, pending = self.state.tokens, self.state.pending
        seen = [value for pair in zip(sums.tolist(), counts.tolist(), strict=True) for value in pair]
        self.state = checkpoint.State(
            self.state.step + 1,
            previous + sum(batch.loss_tokens(self.requirements.prompt_loss) for batch in batches),
            position,
            self.state.loss,
            seconds,
            tuple(old + new for old, new in zip(pending, seen, strict=True)),
        )
        self._log(previous, factor, norm)

    def _gradient(self, batches: Sequence[Batch]) -> tuple[torch.Tensor, torch.Tensor]:
        """Leave the gradient of the mean over all ``batches`` in the weights; the sums and counts of every term.

        Counts need no model, so each batch is divided by those of all: the gradient is that of one large batch.
        """
        counts = torch.stack([self.loss.counts(batch) for batch in batches]).sum(dim=0)
        sums = torch.zeros_like(counts)
        for batch in batches:
            own = self.loss.sums(batch)
            loss = (own / counts.clamp(min=1e-9) * self.weights).sum()
            loss.backward()  # type: ignore[no-untyped-call]
            sums += own.detach()
        self._check(sums / counts.clamp(min=1e-9))
        return sums, counts

    def _check(self, means: torch.Tensor) -> None:
        value = float((means * self.weights).sum())
        bounded = [mean for mean, term in zip(means.tolist(), self.loss.terms, strict=True) if term.bounded]
        if not math.isfinite(value) or max(bounded, default=0.0) > self._ceiling:
            self._diverged(value)

    @property
    def _ceiling(self) -> float:
        """A loss no learning student has: three times that of guessing every token alike."""
        return 3 * math.log(len(self.learner.tokenizer)) + 3

    def _diverged(self, value: float) -> None:
        kept = self.folder / "checkpoint"
        raise TrainingDiverged(
            "the loss or its gradient exploded",
            where=f"stage {self.stage.spec.name}, step {self.state.step}",
            given=value,
            hint="a lower train.optimizer.learning_rate or train.clip: 1, with another --out"
            + (f"; the last good checkpoint is kept in {kept}" if kept.exists() else ""),
        )

    def _log(self, previous: int, factor: float, norm: float) -> None:
        """Rows of metrics.jsonl; nothing in them depends on the clock."""
        row: dict[str, Any] = {
            "cycle": self.stage.cycle,
            "stage": self.stage.index,
            "name": self.stage.spec.name,
            "step": self.state.step,
            "tokens": self.state.tokens,
            "run_tokens": self.stage.first_token + self.state.tokens,
        }
        done = self.state.tokens >= self.stage.spec.tokens
        if self.state.step % self.settings.log_every == 0 or done:
            loss, told = self._means()
            self.state = replace(self.state, loss=loss, pending=(0.0,) * len(self.state.pending))
            rate = self.settings.optimizer.learning_rate * factor
            self.learner.metrics.append({**row, "loss": loss, "learning_rate": rate, "gradient_norm": norm, **told})
        every = self.stage.spec.tokens / max(self.settings.validate, 1)
        if self.settings.validate and (int(previous / every) < int(self.state.tokens / every) or done):
            self.learner.metrics.append({**row, **self._validate()})

    def _means(self) -> tuple[float, dict[str, float]]:
        """The mean loss since the last row, and that of each named term; a term without counts is left out."""
        sums, counts = self.state.pending[::2], self.state.pending[1::2]
        means = [total / max(count, 1e-9) for total, count in zip(sums, counts, strict=True)]
        terms = list(zip(self.loss.terms, means, counts, strict=True))
        named = {term.name: mean for term, mean, count in terms if term.name is not None and count}
        return sum(term.weight * mean for term, mean, _ in terms), named

    @torch.no_grad()
    def _validate(self) -> dict[str, float]:
        """Mean loss per token, of all tokens and of answers, over the fixed validation samples."""
        self.model.eval()
        sums = np.zeros(4)
        loss = make_losses(self.model, self.settings)
        for batch in _validation_batches(self.learner, self.settings):
            inputs, labels, answer, *context = tensors(batch)
            each = loss(inputs, labels, *context).double()
            real = labels != -100
            sums += [
                float(each.sum()),
                int(real.sum()),
                float(each[answer & real].sum()),
                int((answer & real).sum()),
            ]
        self.model.train()
        if not np.isfinite(sums).all():
            self._diverged(float(sums[0]))
        return {
            "validation_loss": sums[0] / max(sums[1], 1),
            "validation_answer_loss": sums[2] / max(sums[3], 1),
        }

    def _save(self, chance: torch.Tensor | None = None) -> None:
        self.learner.metrics.close()
        checkpoint.save(self.folder / "checkpoint", self.model, self.optimizers, self.state, chance)
        self.saved = time.monotonic()

    def _finish(self) -> str:
        """Write the finished model, and what the next stage's optimizer continues from. The checkpoint stays until
        the run has recorded the stage.
        """

        def fill(target: Path) -> None:
            with quiet():
                if adapter_names(self.model) is None:
                    self.model.save_pretrained(target)
                else:
                    save_adapter(self.model, target)
                self.learner.tokenizer.save_pretrained(target)

        self.learner.metrics.close()
        self.model.eval()
        if self.loss.auxiliary is not None:
            del self.model.auxiliary
            checkpoint.save_auxiliary(self.loss.auxiliary, self.folder / "auxiliary.safetensors")
        write_folder(self.folder / "model", fill)
        if not self.settings.restart:
            write_folder(self.folder / "optimizer", partial(checkpoint.save_optimizers, self.optimizers))
        return weights_digest(self.model)


def weights_digest(model: PreTrainedModel) -> str:
    """SHA-256 over every parameter's name and bytes, in the order of names; with an adapter, of its own alone."""
    digest = hashlib.sha256()
    learnt = adapter_names(model)
    for name, value in sorted(model.named_parameters()):
        if learnt is not None and name not in learnt:
            continue
        digest.update(name.encode())
        digest.update(value.detach().cpu().contiguous().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def _batcher(learner: Learner, stage: Stage, objective: str, events: Events) -> tuple[Windows | Packed, int]:
    """The stage's batches, and how many samples were too long for them."""
    settings = learner.train
    if settings.batching == "windows":
        refuse_windows(stage)
        return Windows(learner.samples, stage, settings.size, settings.length), 0
    requirements = OBJECTIVES.get(objective).requirements(settings)
    rows, beside = stage.rows, make_beside(objective, requirements, learner.samples)
    if beside is not None and requirements.pairs_only:
        rows = paired_rows(beside, rows)
        if len(rows) < len(stage.rows):
            text = f"{len(stage.rows) - len(rows)} of {len(stage.rows)} samples have no second answer and are left out"
            events(Event("note", f"train {stage.spec.name}", text=text))
    rows, dropped = fitting_rows(learner.samples, rows, settings.length, beside)
    packed = _packed(learner, learner.samples, replace(stage, rows=rows), settings.isolate)
    tokens = row_tokens(requirements, settings, learner.samples, rows, beside)
    draws = draws_of(stage, rows, tokens, settings.size * settings.length)
    return replace(packed, beside=beside, draws=draws), dropped


def _packed(learner: Learner, encoded: Encoded, stage: Stage, isolate: bool) -> Packed:
    pad = int(learner.tokenizer.pad_token_id)
    return Packed(encoded, stage, learner.train.size, learner.train.length, pad, isolate)


def _validation_batches(learner: Learner, settings: TrainSettings) -> Iterator[Batch]:
    """The validation samples once, batched as in training; packed ones that are too long are left out."""
    stage = Stage(StageSpec("validation", (1.0,), 1, order="sorted"), 0, np.arange(len(learner.validation)), 0, 0, 1)
    if settings.batching == "windows":
        return Windows(learner.validation, stage, settings.size, settings.length).one_pass()
    rows, _ = fitting_rows(learner.validation, stage.rows, settings.length)
    return _packed(learner, learner.validation, replace(stage, rows=rows), settings.isolate).one_pass()
