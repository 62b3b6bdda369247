"""The kind of student ``language``: a causal language model, from a preset or a pretrained base."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...inference import answer_loss, loglikelihood, sharing
from ...model import hardware, load
from ...model.hub import model_size
from ...model.settings import ModelSettings, TrainSettings
from ...options import strict
from ...processes import launch
from ...random_streams import initialization_seed
from ...stage import AnswerLoss, Examination, Model, Needs
from ...training import batches, trainer
from ...training import examples as training_examples
from ...training.objective import OBJECTIVES, check_objective
from .student import Student, StudentContext

if TYPE_CHECKING:
    import numpy.typing as npt

    from ...corpus import Corpus
    from ...record import Metrics
    from ...schedule import Bands
    from ...training.examples import FormattedExample
    from ...training.trainer import StageTrainer


@strict("the kind of student 'language'")
def language(
    context: StudentContext, /, *, settings: ModelSettings | None = None, train: TrainSettings | None = None
) -> LanguageStudent:
    """A language model."""
    return LanguageStudent(context, settings or ModelSettings(), train or TrainSettings())


@dataclass(frozen=True)
class LanguageStudent(Student):
    """A language model with the settings of the sections ``student`` and ``train``."""

    context: StudentContext
    settings: ModelSettings
    train: TrainSettings
    several_processes = True

    @property
    def step(self) -> int:
        """Tokens of an optimizer step of full batches."""
        return self.train.tokens_per_step

    @property
    def name(self) -> str:
        """The base or the preset."""
        return self.settings.base or self.settings.preset

    @property
    def pretrained(self) -> bool:
        """Whether there is a base."""
        return self.settings.base is not None

    @property
    def restarts(self) -> bool:
        """Whether each stage has a new optimizer and learning-rate schedule."""
        return self.train.reset_optimizer

    @property
    def parameter_bytes(self) -> int:
        """2 for bf16 weights."""
        return 2 if self.settings.dtype == "bf16" and self.settings.lora is None else 4

    @property
    def objective(self) -> str:
        """``train.objective``."""
        return self.train.objective

    @property
    def objectives(self) -> Mapping[str, str]:
        """The registered losses."""
        return {entry.name: entry.summary for entry in OBJECTIVES}

    @property
    def design_facts(self) -> Mapping[str, Any]:
        """Tokens of a step, the kind of token, whether each stage has a new warm-up."""
        return {
            "tokens_in_a_step": self.step,
            "a_token_is": "of the pretrained student's own" if self.pretrained else self.settings.tokenizer,
            "optimizer_and_learning_rate_begin_anew_at_each_stage": self.restarts,
        }

    def check_objective(self, name: str, where: str) -> None:
        """See ``training.objective.check_objective``."""
        check_objective(name, self.train)

    def parameters(self) -> int | None:
        """That of a base on this disk; a preset depends on the vocabulary, see ``plan.parameters``."""
        if self.settings.base is None:
            return None
        size = model_size(self.settings.base, self.settings.lora)
        return None if size is None else size.trainable

    def epoch(self, dataset: Corpus, rows: npt.NDArray[Any]) -> int:
        """Loss tokens of one pass."""
        _, samples, _ = dataset.tokens(self.settings, self.context.events)
        requirements = OBJECTIVES.get(self.train.objective).requirements(self.train)
        return batches.epoch_tokens(self.train.objective, requirements, self.train, samples, rows)

    def trainer(self, dataset: Corpus, metrics: Metrics, examination: Examination | None = None) -> StageTrainer:
        """The trainer in this process."""
        hardware.use_threads(self.context.threads, launch().local_size)
        tokenizer, samples, validation = dataset.tokens(self.settings, self.context.events)
        settings = (self.settings, self.train, examination, self.context.processes)
        seed = initialization_seed(self.context.seed)
        return trainer.StageTrainer(tokenizer, samples, validation, metrics, seed, *settings)

    def initial_model(self, dataset: Corpus, metrics: Metrics) -> Model:
        """The model before training, with the tokenizer of the training."""
        made = self.trainer(dataset, metrics)
        if self.pretrained:
            return load.load_before_training(self.settings, made.tokenizer, hardware.device())
        return load.LoadedModel(made.initial(None).eval(), made.tokenizer)

    def open_model(self, folder: Path) -> Model:
        """See ``load.load_student``."""
        return load.load_student(folder, hardware.device(), dtype=self.settings.evaluation_dtype)

    def share(self, model: Model) -> None:
        """See ``inference.sharing``."""
        sharing.share_model(model.model, self.context.processes)

    def measure(
        self,
        needs: Needs,
        model: Model,
        dataset: Corpus,
        bands: Bands,
        band_indices: npt.NDArray[Any],
        seed: int,
        probe: Path,
    ) -> dict[str, Any]:
        """Losses on validation samples, by ``bands``, and of a probe of training samples."""
        samples, validation = dataset.tokens(self.settings, self.context.events)[1:]
        arguments = (needs, model, samples, validation, bands, band_indices)
        return loglikelihood.measure(*arguments, seed=seed, path=probe, events=self.context.events)

    def examples(self, dataset: Corpus) -> tuple[FormattedExample, ...]:
        """The first training samples of a dataset, formatted, with their loss mask."""
        tokenizer, samples, _ = dataset.tokens(self.settings, self.context.events)
        rows = range(min(training_examples.SHOWN, len(samples)))
        return training_examples.formatted_examples(tokenizer, samples, self.train, rows)

    def answer_losses(self, dataset: Corpus) -> dict[str, AnswerLoss]:
        """The loss of the dataset's answers under the base, by kind of answer."""
        if self.settings.base is None:
            return {}
        _, samples, _ = dataset.tokens(self.settings, self.context.events)
        model = load.load_model(self.settings.base, hardware.device(), dtype=self.settings.dtype)
        return answer_loss.answer_losses(model, samples, seed=self.context.data_seed, events=self.context.events)
