"""Progress of a training on the console: bars, and a line with the scores of each epoch."""

import time
from collections.abc import Mapping
from typing import Any

from tqdm.auto import tqdm
from transformers import TrainerCallback
from transformers.trainer_callback import ExportableState, ProgressCallback


class ProgressBars(ProgressCallback):
    """Progress bars without `Trainer`'s dictionaries."""

    def on_log(self, args, state, control, logs=None, **kwargs) -> None:
        """Print nothing: `EpochReport` prints a line."""


class EpochReport(TrainerCallback, ExportableState):
    """One line with the scores in `columns` for each epoch, and the seconds of the epochs, which checkpoints keep."""

    def __init__(self, columns: Mapping[str, str]) -> None:
        self.columns = columns
        self.seconds: list[float] = []  # of training in each epoch, without evaluation at its end
        self.began = 0.0  # start of the current epoch; 0 between epochs
        self.begun = 0.0  # seconds of the current epoch before a resumed checkpoint
        self.is_training = False

    def state(self) -> dict[str, dict[str, Any]]:
        """Return the seconds of the epochs so far, for a checkpoint."""
        begun = time.perf_counter() - self.began if self.began else 0.0
        return {"args": {"columns": dict(self.columns)}, "attributes": {"seconds": [*self.seconds], "begun": begun}}

    def on_train_begin(self, args, state, control, **kwargs) -> None:
        """Read the seconds of the epochs before a resumed checkpoint."""
        saved = state.stateful_callbacks.get(type(self).__name__, {}).get("attributes", {}) if state.global_step else {}
        self.seconds, self.begun, self.began = saved.get("seconds", []), saved.get("begun", 0.0), 0.0
        if len(self.seconds) < int(state.epoch or 0):  # saved in the last step of an epoch, before its end
            self.seconds, self.begun = [*self.seconds, self.begun], 0.0
        self.is_training = True

    def on_train_end(self, args, state, control, **kwargs) -> None:
        """Print no further lines."""
        self.is_training = False

    def on_epoch_begin(self, args, state, control, **kwargs) -> None:
        """Start the clock."""
        self.began, self.begun = time.perf_counter() - self.begun, 0.0

    def on_epoch_end(self, args, state, control, **kwargs) -> None:
        """Stop the clock."""
        self.seconds.append(time.perf_counter() - self.began)
        self.began = 0.0

    def on_evaluate(self, args, state, control, metrics: dict[str, float], **kwargs) -> None:
        """Print losses, scores and seconds, unless no step has been made."""
        if not (self.is_training and state.is_world_process_zero and state.global_step):
            return
        seconds = time.perf_counter() - self.began if self.began else self.seconds[-1]
        losses = [entry["loss"] for entry in state.log_history if "loss" in entry][-1:]
        parts = [f"epoch {state.epoch:.3g}/{state.num_train_epochs:g}", *(f"loss {loss:.4f}" for loss in losses)]
        shown = {"loss": "validation loss", **self.columns}
        parts += [f"{name} {metrics[f'eval_{key}']:.4f}" for key, name in shown.items() if f"eval_{key}" in metrics]
        tqdm.write("  ".join([*parts, f"{seconds:.1f} s"]))
