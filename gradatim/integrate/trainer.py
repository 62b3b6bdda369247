"""``CurriculumMixin``: a curriculum in transformers' ``Trainer`` or a subclass such as TRL's ``SFTTrainer``.

    class CurriculumTrainer(CurriculumMixin, SFTTrainer): ...
    sampler = CurriculumSampler(dataset, "om", epochs=3, batch=16)
    CurriculumTrainer(model, args=args, train_dataset=dataset, curriculum=sampler)

Subclassing is these trainers' extension point for the sampler, hence a mixin. It replaces the random sampler and leaves
everything else to the trainer: one run, one optimizer, one learning-rate schedule. Processes and accumulation are the
trainer's too: it distributes the one order batch by batch.

A checkpoint contains the curriculum's ``state_dict`` in ``trainer_state.json``; a resumed run checks it before it skips
finished samples. Settings under which the order would be lost (packing, shuffling, a filtered dataset,
``ignore_data_skip``) are errors when training begins and are never overridden silently.

The dataset argument of the trainer is compared with the curriculum's data, column by column, before the trainer
prepares it. A dataset that shares no column with that data and holds tokens (``input_ids``) was prepared beforehand:
then only the number of rows can be compared.
"""

from __future__ import annotations

import inspect
from collections.abc import Sized
from typing import TYPE_CHECKING, Any

from ..errors import DataError, RecipeError
from .sampler import UNNAMED, CurriculumSampler, differing, digests

if TYPE_CHECKING:
    from torch.utils.data import DataLoader
    from transformers import TrainerCallback


KEY = "CurriculumSampler"
"""The key of the curriculum among the states of a checkpoint."""


class CurriculumMixin:
    """Mixin before a ``Trainer``: ``class Mine(CurriculumMixin, Trainer)``; a further argument ``curriculum``.

    The curriculum is one pass, so ``num_train_epochs`` is 1, or ``max_steps`` exactly the steps of that pass; its
    length is an argument of the sampler. Raises ``DataError`` for a dataset that is not the curriculum's;
    ``RecipeError`` and ``DataError`` from ``train()``, before the first step.
    """

    def __init__(self, *args: Any, curriculum: CurriculumSampler, **kwargs: Any) -> None:
        self.curriculum = curriculum
        _check_rows(_dataset_argument(super().__init__, args, kwargs), curriculum)
        super().__init__(*args, **kwargs)
        self.add_callback(_state_callback(self))  # type: ignore[attr-defined]

    def get_train_dataloader(self) -> DataLoader[Any]:
        """The trainer's loader, with the curriculum as its sampler."""
        _check_arguments(self)  # first: packing also changes the rows
        _check_data(self)
        loader: DataLoader[Any] = super().get_train_dataloader()  # type: ignore[misc]
        _check_length(self, len(loader))
        return loader

    def _get_train_sampler(self, train_dataset: Any = None) -> CurriculumSampler:
        """The hook of ``Trainer`` for its sampler."""
        return self.curriculum


def _dataset_argument(constructor: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """The argument ``train_dataset`` of a trainer's constructor, positional or by name."""
    if "train_dataset" in kwargs or not args:
        return kwargs.get("train_dataset")
    names = list(inspect.signature(constructor).parameters)
    index = names.index("train_dataset") if "train_dataset" in names else len(args)
    return args[index] if index < len(args) else None


def _check_rows(data: Any, curriculum: CurriculumSampler) -> None:
    """Raise ``DataError`` when the columns' digests show that the dataset is not the curriculum's."""
    if not isinstance(data, Sized) or not hasattr(data, "__getitem__") or len(data) != curriculum.rows:
        return  # refused when training begins, see ``_check_data``
    current = digests(data)
    shared = {name: digest for name, digest in curriculum.data.items() if name in current}
    if shared or "input_ids" in current or UNNAMED in current or UNNAMED in curriculum.data:
        changed = differing(shared, current)
    else:
        changed = differing(curriculum.data, current)
    if changed:
        raise DataError(
            "the trainer's dataset is not the one that the curriculum was made for",
            where="train_dataset",
            given=f"different values in {', '.join(map(repr, changed))} in the same number of rows",
            hint="CurriculumSampler of this very dataset, with one number per row as its difficulty",
        )


def _check_data(trainer: Any) -> None:
    """Raise ``DataError`` unless the dataset has the rows of the curriculum."""
    data = trainer.train_dataset
    rows = trainer.curriculum.rows
    if not isinstance(data, Sized) or not hasattr(data, "__getitem__"):
        raise DataError("a curriculum needs a dataset with rows, not a stream", where="train_dataset", given=type(data))
    if len(data) != rows:
        raise DataError(
            "the trainer's dataset is not the one that the curriculum was made for",
            where="train_dataset",
            given=f"{len(data)} rows, the curriculum has {rows}",
            hint="a trainer that drops rows (SFTTrainer drops those without a completion inside max_length) "
            "must be given data without them",
        )


def _check_arguments(trainer: Any) -> None:
    """Raise ``RecipeError`` for settings that change the order of the samples."""
    args = trainer.args
    faults = [
        f"{name}={getattr(args, name)}"
        for name in ("packing", "shuffle_dataset", "ignore_data_skip", "auto_find_batch_size")
        if getattr(args, name, False)
    ]
    if getattr(args, "train_sampling_strategy", "random") not in ("random", "sequential"):
        faults.append(f"train_sampling_strategy={args.train_sampling_strategy}")
    if trainer.accelerator.dispatch_batches and args.world_size > 1:
        faults.append("dispatch_batches=True")
    if faults:
        raise RecipeError(
            "the order of the curriculum would be lost",
            where="training arguments",
            given=", ".join(faults),
            hint="without",
        )


def _check_length(trainer: Any, batches: int) -> None:
    """Raise ``RecipeError`` unless the run is exactly one pass through the curriculum."""
    args = trainer.args
    steps = -(-batches // args.gradient_accumulation_steps)
    matches = args.max_steps == steps if args.max_steps > 0 else args.num_train_epochs == 1
    if not matches:
        raise RecipeError(
            "the trainer's length is not that of the curriculum",
            where="training arguments",
            given=f"max_steps={args.max_steps}" if args.max_steps > 0 else f"num_train_epochs={args.num_train_epochs}",
            allowed=f"num_train_epochs=1, or max_steps={steps}",
            hint="set the length in the sampler: epochs, or steps with batch",
        )


def _step_samples(trainer: Any) -> int:
    """Samples of an optimizer step, over all processes."""
    total: int = trainer.get_total_train_batch_size(trainer.args)
    return total // trainer.args.world_size if trainer.accelerator.split_batches else total


def _state_callback(trainer: Any) -> TrainerCallback:
    """A callback that stores the curriculum's state in each checkpoint and checks it when a run is resumed."""
    from transformers import TrainerCallback

    class StateCallback(TrainerCallback):
        def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            if state.global_step:
                _check_resumed(trainer, state)

        def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            samples = min(state.global_step * _step_samples(trainer), len(trainer.curriculum))
            state.stateful_callbacks[KEY] = trainer.curriculum.state_dict(samples)

    return StateCallback()


def _check_resumed(trainer: Any, state: Any) -> None:
    """Raise ``RecipeError`` unless the checkpoint has the same curriculum and samples per step."""
    saved = state.stateful_callbacks.get(KEY)
    if saved is None:
        raise RecipeError("the checkpoint was made without a curriculum", where="resume_from_checkpoint")
    trainer.curriculum.check(saved)
    position = min(state.global_step * _step_samples(trainer), len(trainer.curriculum))
    if saved["position"] != position:
        raise RecipeError(
            "the checkpoint was made with another number of samples per step",
            where="resume_from_checkpoint",
            given=f"{saved['position']} samples in {state.global_step} steps, now {position}",
            hint="the same product of batch size, accumulation and processes",
        )
