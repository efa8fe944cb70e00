"""Exponential moving average of the weights, which is evaluated, saved and kept in place of the weights."""

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import nn
from transformers import TrainerCallback

WEIGHTS = "training_weights.safetensors"
"""File of a checkpoint with the weights that training continues with; `model.safetensors` has their average."""

INTERVAL = 10
"""Steps between two updates of the average. An update in each step would take longer than the step itself."""


class WeightAverage(TrainerCallback):
    """Average of a model's weights over the steps of training (Polyak and Juditsky, 1992).

    Args:
        model: the model to be trained.
        decay: weight of the average beside the current weights in each step. In the first updates it is at most
            (1 + updates) / (10 + updates), as in `tf.train.ExponentialMovingAverage`.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.average, self.decay, self.interval = copy.deepcopy(model), decay, INTERVAL

    def on_train_begin(self, args, state, control, model: nn.Module, **kwargs) -> None:
        """Start from the weights of the model, or continue from those that `load` has read."""
        self.interval = max(1, min(INTERVAL, state.max_steps // INTERVAL))  # a short training updates it more often
        if state.global_step == 0:
            self.average.load_state_dict(model.state_dict())

    @torch.no_grad()
    def on_step_end(self, args, state, control, model: nn.Module, **kwargs) -> None:
        """Update the average once in `interval` steps."""
        updates, since = divmod(state.global_step, self.interval)
        if not since:
            weight = 1 - min(self.decay**self.interval, (1 + updates) / (10 + updates))
            torch._foreach_lerp_(list(self.average.parameters()), list(model.parameters()), weight)

    @contextmanager
    def applied(self, model: nn.Module) -> Iterator[None]:
        """Give the model the average as its weights within the context."""
        self.exchange(model)
        try:
            yield
        finally:
            self.exchange(model)

    @torch.no_grad()
    def exchange(self, model: nn.Module) -> None:
        """Exchange the weights of the model and the average."""
        for average, weights in zip(self.average.parameters(), model.parameters(), strict=True):
            current = weights.clone()
            weights.copy_(average)
            average.copy_(current)

    def save(self, folder: Path) -> None:
        """Write the weights of training to a checkpoint. Call it while the average is applied."""
        save_file({name: weights.cpu() for name, weights in self.average.named_parameters()}, folder / WEIGHTS)

    @torch.no_grad()
    def load(self, model: nn.Module, folder: Path) -> None:
        """Read a checkpoint, whose average (`model.safetensors`) the model has as its weights already."""
        if not (folder / WEIGHTS).is_file():
            raise FileNotFoundError(f"{folder / WEIGHTS}: the checkpoint was saved without ema_decay: resume without")
        self.average.load_state_dict(model.state_dict())
        model.load_state_dict(load_file(folder / WEIGHTS), strict=False)
