"""How does a student learn one stage?

``Learner.fit`` is the training loop: batches of one shape, a weighted cross-entropy, clipped gradients, one or two
optimizers. It begins from the model the stage before left on disk, so that a run which goes on and a run which is
resumed take the same road, and from a checkpoint of its own when it was killed. On the same processor and thread
count the weights come out the same, bit for bit. It does not choose the data and does not evaluate.
"""

from __future__ import annotations

import hashlib
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from transformers import AutoModelForCausalLM, PreTrainedModel, PreTrainedTokenizerFast

from ..errors import Stopped, TrainingDiverged
from ..record import Metrics, write_folder
from ..stage import Event, Events, Fitted, Stage, StageSpec, ignore_events
from . import checkpoint
from .architecture import create, freeze, trainable_parameters
from .batches import Batch, Batcher, Packed, Windows, fitting_rows
from .hardware import attention, autocast, compute_type, device, quiet, reproducible
from .objective import token_losses, token_weights
from .optim import make_optimizers, make_shape
from .settings import ModelSettings, TrainSettings
from .tokenizer import Encoded

__all__ = ["Learner", "weights_digest"]

LossAndWeight = Callable[..., tuple[torch.Tensor, torch.Tensor]]


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
        try:
            with reproducible():
                return _Fit(self, stage, folder, previous, events).run()
        finally:
            self.metrics.close()

    def initial(self, previous: Path | None) -> PreTrainedModel:
        """The model a stage starts from: the one before it left, or new weights."""
        if previous is not None:
            with quiet():
                model: PreTrainedModel = AutoModelForCausalLM.from_pretrained(previous / "model", dtype=torch.float32)
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
        freeze(model)
        model.set_attn_implementation(attention(self.train.length))
        on_device: Any = model.train()
        return cast(PreTrainedModel, on_device.to(device()))


class _Fit:
    """One stage being learnt: what the loop carries from step to step."""

    def __init__(self, learner: Learner, stage: Stage, folder: Path, previous: Path | None, events: Events) -> None:
        self.learner, self.stage, self.folder, self.events = learner, stage, folder, events
        self.settings = learner.train
        self.model = learner.initial(previous)
        self.optimizers = make_optimizers(self.model, self.settings.optimizer)
        self.batcher, self.dropped = _batcher(learner, stage)
        self.state = checkpoint.State(0, 0, self.batcher.start, 0.0, 0.0)
        self.resumed_at = 0
        found = checkpoint.load(folder / "checkpoint", self.model, self.optimizers)
        if found is not None:
            self.state, self.resumed_at = found, found.step
        elif previous is not None and not self.settings.restart:
            checkpoint.load_optimizers(previous / "optimizer", self.optimizers)
        learner.metrics.rewind(stage.cycle, stage.index, self.state.step)
        objective = stage.spec.objective or self.settings.objective
        self.other_weight = 0.0 if objective == "answer_only" else self.settings.other_weight
        self.loss = _loss_function(self.model, self.settings, self.other_weight)

    def run(self) -> Fitted:
        budget = self.stage.spec.tokens
        self.events(Event("start", self._task, self.state.tokens, budget))
        shape = make_shape(self.settings.shape)
        clock = self.saved = time.monotonic()
        before = self.state.seconds
        try:
            for batch, position in self.batcher.stream(self.state.position):
                if self.state.tokens >= budget:
                    break
                self._step(batch, position, shape(self._progress()), before + time.monotonic() - clock)
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
            trainable_parameters(self.model),
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

    def _step(self, batch: Batch, position: dict[str, int], factor: float, seconds: float) -> None:
        loss, weight = self.loss(*_tensors(batch))
        mean = loss / weight.clamp(min=1e-9)
        value = float(mean.detach())
        if not math.isfinite(value) or value > self._ceiling:
            self._diverged(value)
        # The loss has just judged the weights of the last step, so what is saved here is known to be good.
        if time.monotonic() - self.saved > self.settings.checkpoint_seconds and self.state.step:
            self._save()
        mean.backward()  # type: ignore[no-untyped-call]
        norm = float(torch.nn.utils.clip_grad_norm_(self.model.parameters(), self.settings.clip or math.inf))
        if not math.isfinite(norm):
            self._diverged(norm)
        self.optimizers.step(factor)
        previous, sums = self.state.tokens, self.state.pending
        self.state = checkpoint.State(
            self.state.step + 1,
            previous + (batch.tokens if self.other_weight else batch.answer_tokens),
            position,
            self.state.loss,
            seconds,
            (sums[0] + float(loss.detach()), sums[1] + float(weight)),
        )
        self._log(previous, factor, norm)

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
            mean = self.state.pending[0] / max(self.state.pending[1], 1e-9)
            self.state = replace(self.state, loss=mean, pending=(0.0, 0.0))
            rate = self.settings.optimizer.learning_rate * factor
            self.learner.metrics.append({**row, "loss": mean, "learning_rate": rate, "gradient_norm": norm})
        every = self.stage.spec.tokens / max(self.settings.validate, 1)
        if self.settings.validate and (int(previous / every) < int(self.state.tokens / every) or done):
            self.learner.metrics.append({**row, **self._validate()})

    @torch.no_grad()
    def _validate(self) -> dict[str, float]:
        """Mean loss per token, of all tokens and of answers, over the fixed validation samples."""
        self.model.eval()
        sums = np.zeros(4)
        loss = _plain_losses(self.model, self.settings)
        for batch in _validation_batches(self.learner, self.settings):
            inputs, labels, answer, *context = _tensors(batch)
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

    def _save(self) -> None:
        self.learner.metrics.close()
        checkpoint.save(self.folder / "checkpoint", self.model, self.optimizers, self.state)
        self.saved = time.monotonic()

    def _finish(self) -> str:
        """Write the finished model, and what the next stage's optimizer continues from. The checkpoint stays until
        the run has recorded the stage.
        """

        def fill(target: Path) -> None:
            with quiet():
                self.model.save_pretrained(target)
                self.learner.tokenizer.save_pretrained(target)

        self.learner.metrics.close()
        self.model.eval()
        write_folder(self.folder / "model", fill)
        if not self.settings.restart:
            write_folder(self.folder / "optimizer", partial(checkpoint.save_optimizers, self.optimizers))
        return weights_digest(self.model)


def weights_digest(model: PreTrainedModel) -> str:
    """SHA-256 over every parameter's name and bytes, in the order of names."""
    digest = hashlib.sha256()
    for name, value in sorted(model.named_parameters()):
        digest.update(name.encode())
        digest.update(value.detach().cpu().contiguous().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def _batcher(learner: Learner, stage: Stage) -> tuple[Batcher, int]:
    """The stage's batches, and how many samples were too long for them."""
    settings = learner.train
    if settings.batching == "windows":
        return Windows(learner.samples, stage, settings.size, settings.length), 0
    rows, dropped = fitting_rows(learner.samples, stage.rows, settings.length)
    return _packed(learner, learner.samples, replace(stage, rows=rows), settings.isolate), dropped


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


def _tensors(batch: Batch) -> tuple[torch.Tensor, ...]:
    """Inputs, labels and answer mask, and with segments the positions and who may attend to whom."""
    place = device()
    tensors = [torch.from_numpy(part).to(place) for part in (batch.inputs, batch.labels, batch.answer)]
    if batch.segments is not None:
        segments = torch.from_numpy(batch.segments).to(place)
        places = torch.arange(segments.shape[1], device=place)
        opens = torch.ones_like(segments, dtype=torch.bool)
        opens[:, 1:] = segments[:, 1:] != segments[:, :-1]
        first = torch.where(opens, places, 0).cummax(dim=1).values
        same = (segments[:, :, None] == segments[:, None, :]) & (places[:, None] >= places[None, :])
        tensors += [places - first, same[:, None]]
    return tuple(tensors)


def _plain_losses(model: PreTrainedModel, settings: TrainSettings) -> Callable[..., torch.Tensor]:
    kind = compute_type(settings.precision)
    plain = attention(settings.length) == "eager"

    def losses(inputs: torch.Tensor, labels: torch.Tensor, *context: torch.Tensor) -> torch.Tensor:
        more = {}
        if context:
            positions, mask = context
            if plain:  # plain attention adds its mask to the scores; the fused one takes truth values
                mask = torch.zeros_like(mask, dtype=kind).masked_fill_(~mask, torch.finfo(kind).min)
            more = {"position_ids": positions, "attention_mask": mask}
        with autocast(settings.precision):
            logits = model(input_ids=inputs, use_cache=False, **more).logits
        return token_losses(logits, labels)

    return losses


def _loss_function(model: PreTrainedModel, settings: TrainSettings, other_weight: float) -> LossAndWeight:
    """(inputs, labels, answer, …) -> (summed weighted loss, summed weight), compiled when the settings ask for it."""
    losses = _plain_losses(model, settings)

    def weighted(
        inputs: torch.Tensor, labels: torch.Tensor, answer: torch.Tensor, *context: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        weights = token_weights(labels, answer, other_weight)
        return (losses(inputs, labels, *context) * weights).sum(), weights.sum()

    return torch.compile(weighted, dynamic=False) if settings.compile else weighted
