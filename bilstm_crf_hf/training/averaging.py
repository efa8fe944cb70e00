"""An exponential moving average of the weights, which is what is evaluated, saved and kept."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import nn
from transformers import TrainerCallback

WEIGHTS = "training_weights.safetensors"
"""File of a checkpoint with the weights that training goes on with; `model.safetensors` has their average."""

INTERVAL = 10
"""Steps between two updates of the average, which would otherwise take longer than those of the weights."""


class WeightAverage(TrainerCallback):
    """The average of a model's weights over the steps of training (Polyak and Juditsky, 1992).

    Args:
        decay: weight of the average in each step, beside the current weights. Early on it is lower, as in
            `tf.train.ExponentialMovingAverage`: (1 + updates) / (10 + updates) in each update.
    """

    def __init__(self, decay: float) -> None:
        self.decay = decay
        self.updates = 0
        self.average: dict[str, torch.Tensor] = {}

    def on_train_begin(self, args, state, control, model: nn.Module, **kwargs) -> None:
        self.updates = state.global_step // INTERVAL
        if not self.average or state.global_step == 0:
            self.average = {name: weights.detach().clone() for name, weights in model.named_parameters()}

    @torch.no_grad()
    def on_step_end(self, args, state, control, model: nn.Module, **kwargs) -> None:
        if state.global_step % INTERVAL:
            return
        self.updates += 1
        decay = min(self.decay**INTERVAL, (1 + self.updates) / (10 + self.updates))
        weights = dict(model.named_parameters())
        torch._foreach_lerp_(list(self.average.values()), [weights[name] for name in self.average], 1 - decay)

    @contextmanager
    def applied(self, model: nn.Module) -> Iterator[None]:
        """Within it, the model has the average as its weights."""
        self._exchange(model)
        try:
            yield
        finally:
            self._exchange(model)

    @torch.no_grad()
    def _exchange(self, model: nn.Module) -> None:
        for name, weights in model.named_parameters():
            if name in self.average:
                current = weights.clone()
                weights.copy_(self.average[name])
                self.average[name].copy_(current)

    def apply(self, model: nn.Module) -> None:
        """Gives the model the average for good."""
        self._exchange(model)
        self.average = {}

    def save(self, folder: Path) -> None:
        """Writes the weights of training to a checkpoint; to be called while the average is applied."""
        save_file({name: weights.cpu() for name, weights in self.average.items()}, folder / WEIGHTS)

    @torch.no_grad()
    def load(self, model: nn.Module, folder: Path) -> None:
        """Goes on from a checkpoint, whose `model.safetensors` the model has loaded already.

        Raises:
            FileNotFoundError: it was saved without an average.
        """
        if not (folder / WEIGHTS).is_file():
            raise FileNotFoundError(f"{folder / WEIGHTS}: the checkpoint was saved without ema_decay: resume without")
        saved = load_file(folder / WEIGHTS)
        for name, weights in model.named_parameters():
            self.average[name] = weights.detach().clone()
            weights.copy_(saved[name])
