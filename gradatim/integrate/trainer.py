"""How does somebody else's trainer follow a curriculum?

``CurriculumMixin`` goes in front of transformers' ``Trainer`` or of one made from it, such as TRL's ``SFTTrainer``:

    class Trained(CurriculumMixin, SFTTrainer): ...
    Trained(model, args=args, train_dataset=dataset, curriculum=CurriculumSampler(dataset, "om", epochs=3, batch=16))

Subclassing is the way these trainers offer for such a change, hence a mixin. It gives the trainer the sampler in place
of its random one, and leaves everything else to it: one run, one optimizer, one learning-rate shape. Processes and
accumulation are the trainer's too: it deals out the one order batch by batch.

A checkpoint keeps, in ``trainer_state.json``, the curriculum's ``state_dict``; a run that goes on from it checks that
before it skips what was learnt. Settings under which the order would be lost (packing, shuffling, a dataset that was
filtered, ``ignore_data_skip``) are refused when training begins, never silently overruled.

The dataset that the trainer is given is compared with the curriculum's data, column by column, before the trainer
prepares it. A dataset that shares no column with that data and holds tokens (``input_ids``) was prepared beforehand:
then there is nothing to compare but the number of rows.
"""

from __future__ import annotations

import inspect
from collections.abc import Sized
from typing import TYPE_CHECKING, Any

from ..errors import DataError, RecipeError
from .columns import UNNAMED, differing, digests
from .sampler import CurriculumSampler

if TYPE_CHECKING:
    from torch.utils.data import DataLoader
    from transformers import TrainerCallback

__all__ = ["CurriculumMixin"]

KEY = "CurriculumSampler"
"""The curriculum's place among the states that a checkpoint keeps."""


class CurriculumMixin:
    """In front of a ``Trainer``: ``class Mine(CurriculumMixin, Trainer)``; takes ``curriculum`` besides its arguments.

    The curriculum is one pass, so ``num_train_epochs`` is 1, or ``max_steps`` exactly what the pass makes; its length
    is said by the sampler. Raises ``DataError`` for a dataset that is not the curriculum's; ``RecipeError`` and
    ``DataError`` from ``train()``, before anything is learnt.
    """

    def __init__(self, *args: Any, curriculum: CurriculumSampler, **kwargs: Any) -> None:
        self.curriculum = curriculum
        _check_rows(_given_dataset(super().__init__, args, kwargs), curriculum)
        super().__init__(*args, **kwargs)
        self.add_callback(_remember(self))  # type: ignore[attr-defined]

    def get_train_dataloader(self) -> DataLoader[Any]:
        """The trainer's loader, with the curriculum as its sampler."""
        _check_arguments(self)  # first: packing also changes the rows
        _check_data(self)
        loader: DataLoader[Any] = super().get_train_dataloader()  # type: ignore[misc]
        _check_length(self, len(loader))
        return loader

    def _get_train_sampler(self, train_dataset: Any = None) -> CurriculumSampler:
        """The hook by which a ``Trainer`` asks for its sampler."""
        return self.curriculum


def _given_dataset(begin: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """The argument ``train_dataset`` of a trainer's constructor, by place or by name."""
    if "train_dataset" in kwargs or not args:
        return kwargs.get("train_dataset")
    names = list(inspect.signature(begin).parameters)
    place = names.index("train_dataset") if "train_dataset" in names else len(args)
    return args[place] if place < len(args) else None


def _check_rows(data: Any, curriculum: CurriculumSampler) -> None:
    """The rows are those that the curriculum was made for, as far as both say what they hold."""
    if not isinstance(data, Sized) or not hasattr(data, "__getitem__") or len(data) != curriculum.rows:
        return  # refused when training begins, see ``_check_data``
    here = digests(data)
    shared = {name: digest for name, digest in curriculum.data.items() if name in here}
    if shared or "input_ids" in here or UNNAMED in here or UNNAMED in curriculum.data:
        other = differing(shared, here)
    else:
        other = differing(curriculum.data, here)
    if other:
        raise DataError(
            "the trainer's dataset is not the one that the curriculum was made for",
            where="train_dataset",
            given=f"another content of {', '.join(map(repr, other))} in as many rows",
            hint="CurriculumSampler of this very dataset, with one number per row as its difficulty",
        )


def _check_data(trainer: Any) -> None:
    """The dataset is the one that the curriculum was made for, row for row."""
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
    """No setting under which the order would be another one."""
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
    """The run is one pass through the curriculum: no stage is left out or begun again."""
    args = trainer.args
    steps = -(-batches // args.gradient_accumulation_steps)
    right = args.max_steps == steps if args.max_steps > 0 else args.num_train_epochs == 1
    if not right:
        raise RecipeError(
            "the trainer's length is not that of the curriculum",
            where="training arguments",
            given=f"max_steps={args.max_steps}" if args.max_steps > 0 else f"num_train_epochs={args.num_train_epochs}",
            allowed=f"num_train_epochs=1, or max_steps={steps}",
            hint="say how long in the sampler: epochs, or steps with batch",
        )


def _step_samples(trainer: Any) -> int:
    """How many samples an optimizer step takes, over all processes."""
    whole: int = trainer.get_total_train_batch_size(trainer.args)
    return whole // trainer.args.world_size if trainer.accelerator.split_batches else whole


def _remember(trainer: Any) -> TrainerCallback:
    """What keeps the curriculum's state in each checkpoint, and compares it when a run goes on."""
    from transformers import TrainerCallback

    class Remember(TrainerCallback):
        def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            if state.global_step:
                _check_resumed(trainer, state)

        def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            seen = min(state.global_step * _step_samples(trainer), len(trainer.curriculum))
            state.stateful_callbacks[KEY] = trainer.curriculum.state_dict(seen)

    return Remember()


def _check_resumed(trainer: Any, state: Any) -> None:
    """The checkpoint is of this curriculum, and its steps mean as many samples as now."""
    saved = state.stateful_callbacks.get(KEY)
    if saved is None:
        raise RecipeError("the checkpoint was made without a curriculum", where="resume_from_checkpoint")
    trainer.curriculum.check(saved)
    here = min(state.global_step * _step_samples(trainer), len(trainer.curriculum))
    if saved["position"] != here:
        raise RecipeError(
            "the checkpoint was made with another number of samples per step",
            where="resume_from_checkpoint",
            given=f"{saved['position']} samples in {state.global_step} steps, now {here}",
            hint="the same product of batch size, accumulation and processes",
        )
