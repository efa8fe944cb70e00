"""`Trainer` with a learning rate for each part of the model, batches grouped by length, and a line for each epoch."""

import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch
from datasets import Dataset
from torch.optim.lr_scheduler import LambdaLR
from torch.utils.data import SequentialSampler
from transformers import Trainer
from transformers.trainer_callback import PrinterCallback, ProgressCallback
from transformers.trainer_pt_utils import LengthGroupedSampler
from transformers.trainer_utils import PredictionOutput, TrainOutput

from ..evaluation.runs import print_scores, save_run, training_summary
from ..modeling_bilstm_crf import BiLSTMCRFPreTrainedModel
from .arguments import checkpoint_to_resume
from .averaging import WeightAverage
from .cuda_graphs import PAD_TO, GraphedSteps
from .optimization import RowAdamW, clip_gradients, use_sparse_gradients

BILSTM_LEARNING_RATE, ENCODER_LEARNING_RATE = 2e-3, 5e-5
ROW_UPDATE_FACTOR = 5
"""Factor of the learning rate of tables of which only the rows in a batch are updated."""


class EpochLengthGroupedSampler(LengthGroupedSampler):
    """Sampler of batches of similar lengths, whose order depends on the seed and the number of the epoch only.

    A run that is resumed, even in the middle of an epoch, therefore continues with the same batches, and the processes
    of a distributed run agree on them. `batch_size` is the number of rows of an update.
    """

    def __init__(self, batch_size: int, lengths: list[int], seed: int) -> None:
        super().__init__(batch_size, lengths=lengths, generator=torch.Generator())
        self.seed = seed
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Set the number of the epoch that is drawn next."""
        self.epoch = epoch

    def __iter__(self) -> Iterator[int]:
        self.generator.manual_seed(self.seed + self.epoch)
        indices = list(super().__iter__())
        # Grouped indices come longest first, 50 batches at a time. An incomplete batch has to stay the last one.
        complete = len(indices) - len(indices) % self.batch_size
        batches = torch.tensor(indices[:complete], dtype=torch.long).view(-1, self.batch_size)
        shuffled = batches[torch.randperm(len(batches), generator=self.generator)]
        return iter(shuffled.flatten().tolist() + indices[complete:])


class TaggerTrainer(Trainer):
    """`Trainer` for taggers and text classifiers with [`TaggerTrainingArguments`].

    Args:
        columns: names of the scores of `compute_metrics` that are shown after each epoch, by their keys.
    """

    data_collator: Any
    optimizer: Any
    lr_scheduler: Any

    def __init__(self, *args, columns: dict[str, str], **kwargs) -> None:
        super().__init__(*args, **kwargs)
        self.is_bilstm = self.model.base_model_prefix == BiLSTMCRFPreTrainedModel.base_model_prefix
        if self.args.learning_rate is None:
            self.args.learning_rate = BILSTM_LEARNING_RATE if self.is_bilstm else ENCODER_LEARNING_RATE
        for default in (ProgressCallback, PrinterCallback):
            self.remove_callback(default)
        self.epoch_report = EpochReport(columns)
        self.add_callback(self.epoch_report)
        self.has_sparse_gradients = False
        self.graphs: GraphedSteps | None = None
        if self._uses_graphs():
            multiple = self.data_collator.pad_to_multiple_of or PAD_TO
            self.data_collator = replace(self.data_collator, pad_to_multiple_of=multiple)
        self.average = None if self.args.ema_decay is None else WeightAverage(self.model, self.args.ema_decay)
        if self.average is not None:
            self.add_callback(self.average)

    def train(self, *args, **kwargs) -> TrainOutput:
        """Train like `Trainer`. With `ema_decay`, the model has the average of the weights afterwards."""
        try:
            output = super().train(*args, **kwargs)
        finally:
            self.graphs = None  # they hold memory, and parameters may move before another training
        if self.average is not None and not self.args.load_best_model_at_end:  # else the checkpoint had the average
            self.average.exchange(self.model)
        return output

    def evaluate(self, *args, **kwargs) -> dict[str, float]:
        """Evaluate like `Trainer`. During a training with `ema_decay`, the average of the weights is evaluated."""
        with self._averaged():
            return super().evaluate(*args, **kwargs)

    def train_and_score(
        self, inputs: Mapping[str, Dataset], scorers: Mapping[str, Callable]
    ) -> tuple[PredictionOutput, dict[str, float]]:
        """Train, resuming if the arguments ask for it, and score the best model.

        Args:
            inputs: encoded rows of the splits `train`, `validation` and, if there is one, `test`.
            scorers: the `compute_metrics` of each split.

        Returns:
            The predictions of the best model for the validation split, and the figures of the run: `eval_...`,
            `test_...`, those of [`training_summary`], number of parameters and seed.
        """
        self.train(resume_from_checkpoint=checkpoint_to_resume(self.args))
        self.save_state()
        metric = self.args.metric_for_best_model
        results = training_summary(self.state.log_history, self.epoch_report.seconds, metric)
        results |= {"parameters": self.model.num_parameters(), "seed": self.args.seed}
        outputs: dict[str, PredictionOutput] = {}
        for split, prefix in {"validation": "eval", "test": "test"}.items():
            if split in inputs:
                self.compute_metrics = scorers[split]
                outputs[split] = self.predict(inputs[split], metric_key_prefix=prefix)
                results |= outputs[split].metrics
        if more := len(self.train_dataset) - len(inputs["train"]):
            results["train_soft_sentences"] = more
        return outputs["validation"], results

    def finish(
        self,
        settings: Sequence[Any],
        results: dict[str, Any],
        predictions: Iterable[tuple[str, Any, Any]],
        training_columns: Mapping[str, str] = MappingProxyType({}),
    ) -> None:
        """Save the finished run in `output_dir` with the arguments of [`save_run`], and print its scores.

        Args:
            training_columns: names of the scores on the training set in the log, by their keys, for the picture.
        """
        columns = self.epoch_report.columns
        curves = {key: f"validation {name}" for key, name in columns.items()} if training_columns else columns
        save_run(self, settings, results, predictions, curves, training_columns)
        print_scores(results, columns, self.args.metric_for_best_model, self.args.output_dir)

    def push_to_hub(self, *args, **kwargs) -> None:
        """Refuse to upload: `Trainer` would send the files of a run without checking them."""
        raise NotImplementedError(
            "TaggerTrainer does not upload unchecked files: train with --push_to_hub, or run "
            f"bilstm-crf publish {self.args.output_dir} NAME/MODEL once training has finished"
        )

    def create_model_card(self, **kwargs: Any) -> None:
        """Do nothing: the card is written when a finished run is published."""

    def training_step(
        self, model: torch.nn.Module, inputs: dict[str, Any], num_items_in_batch: torch.Tensor | int | None = None
    ) -> torch.Tensor:
        """Compute the loss of a batch and its gradient, by a CUDA graph where one can be used."""
        if num_items_in_batch is not None or not self._uses_graphs():
            return super().training_step(model, inputs, num_items_in_batch)
        if self.graphs is None:
            self.graphs = GraphedSteps(model, partial(super().training_step, model))
        return self.graphs(self._prepare_inputs(inputs), self.current_gradient_accumulation_steps)

    def _uses_graphs(self) -> bool:
        arguments = self.args
        single = arguments.device.type == "cuda" and arguments.n_gpu == 1 and arguments.world_size == 1
        wanted = arguments.cuda_graphs and not (arguments.fp16 or arguments.torch_compile)
        pads = "pad_to_multiple_of" in getattr(self.data_collator, "__dataclass_fields__", {})
        # With a loss function of its own, `Trainer` passes a number of items to each step, which graphs do not take.
        return self.is_bilstm and single and wanted and pads and self.compute_loss_func is None

    def create_optimizer(self, model: torch.nn.Module | None = None) -> torch.optim.Optimizer:
        """Create AdamW with a parameter group for each pair of learning rate and weight decay."""
        if self.optimizer is not None:
            return self.optimizer
        model = self.model if model is None else model
        optimizer_class, options = self.get_optimizer_cls_and_kwargs(self.args, model)
        by_rows: set[str] = set()
        # The gradient scaler of float16 knows only the step of AdamW itself.
        if self.is_bilstm and not self.args.fp16 and optimizer_class is torch.optim.AdamW:
            # On accelerators a dense gradient costs next to nothing, and NCCL reduces dense ones only.
            on_cpu = self.args.device.type == "cpu"
            optimizer_class, by_rows = RowAdamW, use_sparse_gradients(model, sparse=on_cpu)
            self.has_sparse_gradients = on_cpu and bool(by_rows)
        decaying = set(self.get_decay_parameter_names(model))
        groups: dict[tuple[float, float, bool], list[torch.nn.Parameter]] = {}
        for name, parameter in model.named_parameters():
            if parameter.requires_grad:
                rows, decay = name in by_rows, self.args.weight_decay if name in decaying else 0.0
                groups.setdefault((self._learning_rate_of(name, rows), decay, rows), []).append(parameter)
        # A fused group would move its count of steps to the device when it is loaded.
        self.optimizer = optimizer_class(
            [
                {"params": parameters, "lr": rate, "weight_decay": decay, "rows": rows}
                | {"fused": options.get("fused") and not rows}
                for (rate, decay, rows), parameters in groups.items()
            ],
            **options,
        )
        return self.optimizer

    def _learning_rate_of(self, name: str, by_rows: bool) -> float:
        rate = None
        if name.startswith("crf.") and self.args.crf_learning_rate is not None:
            rate = self.args.crf_learning_rate
        elif not name.startswith(f"{self.model.base_model_prefix}."):
            rate = self.args.head_learning_rate
        elif "embeddings" in name:
            rate = self.args.embedding_learning_rate
        default = self.args.learning_rate * (ROW_UPDATE_FACTOR if by_rows else 1)
        return default if rate is None else rate

    def create_scheduler(
        self, num_training_steps: int, optimizer: torch.optim.Optimizer | None = None
    ) -> torch.optim.lr_scheduler.LRScheduler:
        """Create the schedule of `learning_rate_decay`, or that of `lr_scheduler_type` without it."""
        decay = self.args.learning_rate_decay
        if decay is None or self.lr_scheduler is not None:
            return super().create_scheduler(num_training_steps, optimizer)
        steps_per_epoch = math.ceil(num_training_steps / self.args.num_train_epochs)
        optimizer = self.optimizer if optimizer is None else optimizer
        self.lr_scheduler = LambdaLR(optimizer, lambda step: decay ** (step // steps_per_epoch))
        self._created_lr_scheduler = True  # makes a second `train` create a new one
        return self.lr_scheduler

    def _averaged(self) -> AbstractContextManager:
        if self.average is None or not self.is_in_train:
            return nullcontext()
        return self.average.applied(self.model)

    def _save_checkpoint(self, *args, **kwargs) -> None:
        with self._averaged():
            super()._save_checkpoint(*args, **kwargs)

    def _save_optimizer_and_scheduler(self, output_dir: str) -> None:
        super()._save_optimizer_and_scheduler(output_dir)
        if self.average is not None and self.args.should_save:
            self.average.save(Path(output_dir))

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        super()._load_optimizer_and_scheduler(checkpoint)
        if self.average is not None and checkpoint is not None:
            self.average.load(self.model, Path(checkpoint))

    def _clip_grad_norm(self, model: torch.nn.Module) -> torch.Tensor:
        if self.has_sparse_gradients:
            return clip_gradients(model.parameters(), self.args.max_grad_norm)
        return super()._clip_grad_norm(model)

    def _get_grad_norm(self, model: torch.nn.Module, grad_norm: torch.Tensor | None = None) -> torch.Tensor:
        if grad_norm is None and self.has_sparse_gradients:
            grad_norm = clip_gradients(model.parameters(), float("inf"))
        return super()._get_grad_norm(model, grad_norm)

    def _get_train_sampler(self, train_dataset: Dataset | None = None) -> torch.utils.data.Sampler | None:
        dataset = self.train_dataset if train_dataset is None else train_dataset
        if self.args.train_sampling_strategy != "group_by_length":
            return super()._get_train_sampler(dataset)
        # The rows of one update, so that neither accumulation nor the number of processes changes the order.
        batch_size = self.args.train_batch_size * self.args.gradient_accumulation_steps * self.args.world_size
        seed = self.args.seed if self.args.data_seed is None else self.args.data_seed
        return EpochLengthGroupedSampler(batch_size, [len(ids) for ids in dataset["input_ids"]], seed)

    def _get_eval_sampler(self, eval_dataset: Dataset) -> torch.utils.data.Sampler | None:
        """Return rows in their order: `Trainer` would group them by length and change the order of predictions."""
        return SequentialSampler(eval_dataset) if self.args.world_size <= 1 else None


class EpochReport(ProgressCallback):
    """Progress bars, and one line with the scores in `columns` for each epoch in place of `Trainer`'s dictionaries."""

    def __init__(self, columns: dict[str, str]) -> None:
        super().__init__()
        self.columns = columns
        self.seconds: list[float] = []  # of training in each epoch, without evaluation
        self.began = 0.0  # start of the current epoch; 0 between epochs

    def on_log(self, args, state, control, logs=None, **kwargs) -> None:
        """Print nothing: `on_evaluate` prints a line."""

    def on_epoch_begin(self, args, state, control, **kwargs) -> None:
        """Start the clock."""
        self.began = time.perf_counter()

    def on_epoch_end(self, args, state, control, **kwargs) -> None:
        """Stop the clock."""
        self.seconds.append(time.perf_counter() - self.began)
        self.began = 0.0

    def on_evaluate(self, args, state, control, metrics=None, **kwargs) -> None:
        """Print losses, scores and seconds."""
        super().on_evaluate(args, state, control, **kwargs)
        if self.training_bar is None or not (self.began or self.seconds):
            return
        seconds = time.perf_counter() - self.began if self.began else self.seconds[-1]
        loss = next((entry["loss"] for entry in reversed(state.log_history) if "loss" in entry), float("nan"))
        scores = "".join(f"  {name} {metrics[f'eval_{key}']:.4f}" for key, name in self.columns.items())
        self.training_bar.write(
            f"epoch {state.epoch:.3g}/{state.num_train_epochs:g}  loss {loss:.4f}  "
            f"validation loss {metrics['eval_loss']:.4f}{scores}  {seconds:.1f} s"
        )
