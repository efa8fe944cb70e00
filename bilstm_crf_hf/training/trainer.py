"""`Trainer` with a learning rate for each part of the model, batches grouped by length, and checks of its numbers."""

import math
import shutil
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import fields, replace
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pyarrow.compute as pc
import torch
from datasets import Dataset
from safetensors import SafetensorError
from torch.optim.lr_scheduler import LambdaLR
from torch.utils.data import SequentialSampler
from transformers import PreTrainedTokenizerBase, Trainer
from transformers.trainer_callback import PrinterCallback, ProgressCallback
from transformers.trainer_utils import PredictionOutput, TrainOutput

from ..data.collation import TaggingCollator
from ..evaluation.runs import print_scores, save_model, save_run, training_summary
from ..evaluation.tasks import TASKS
from ..modeling_bilstm_crf import BiLSTMCRFPreTrainedModel
from ..pipeline_bilstm_crf import check_finite
from .arguments import TaggerTrainingArguments
from .averaging import WeightAverage
from .checkpoints import (
    check_settings,
    checkpoint_to_resume,
    newest_checkpoint,
    remove_later_checkpoints,
    run_settings,
    save_settings,
)
from .checks import check_arguments
from .cuda_graphs import PAD_TO, GraphedSteps
from .optimization import RowAdamW, clip_gradients, use_sparse_gradients
from .progress import EpochReport, ProgressBars
from .sampling import EpochLengthGroupedSampler
from .threads import training_threads

BILSTM_LEARNING_RATE, ENCODER_LEARNING_RATE = 2e-3, 5e-5
ROW_UPDATE_FACTOR = 5
"""Factor of the learning rate of tables of which only the rows in a batch are updated."""
VECTOR_FACTOR = 0.5
"""Factor of the learning rate of pretrained vectors of words: the words of the training should stay near the others."""


class TaggerTrainer(Trainer):
    """`Trainer` for taggers and text classifiers with [`TaggerTrainingArguments`], or with stock arguments.

    A training that loses its numbers stops with an error, before a checkpoint or a model of them is saved. A checkpoint
    of a run with other settings or data is not resumed from.

    Args:
        columns: names of the scores of `compute_metrics` that are shown after each epoch, by their keys. Default: those
            of taggers and text classifiers.
        choices: settings of the run beside the arguments, which a resumed run must have too.

    Raises:
        ValueError: see [`check_arguments`].
    """

    data_collator: Any
    optimizer: Any
    lr_scheduler: Any

    def __init__(
        self,
        model: Any = None,
        args: Any = None,
        data_collator: Any = None,
        train_dataset: Any = None,
        eval_dataset: Any = None,
        processing_class: Any = None,
        *more,
        columns: Mapping[str, str] | None = None,
        choices: Mapping[str, Any] = MappingProxyType({}),
        **kwargs,
    ) -> None:
        if args is not None:  # before `Trainer` makes the output folder
            check_arguments(args, model, train_dataset, kwargs.get("compute_metrics"), eval_dataset)
        if data_collator is None and processing_class is not None and _labels_tokens(train_dataset or eval_dataset):
            data_collator = TaggingCollator(processing_class)
        super().__init__(model, args, data_collator, train_dataset, eval_dataset, processing_class, *more, **kwargs)
        for field in fields(TaggerTrainingArguments):
            if not hasattr(self.args, field.name):  # stock arguments
                setattr(self.args, field.name, field.default)
        self.choices = choices
        self.settings: dict[str, Any] = {}  # of `run_settings`, while training saves checkpoints or is resumed
        self.is_bilstm = self.model.base_model_prefix == BiLSTMCRFPreTrainedModel.base_model_prefix
        if self.args.learning_rate is None:
            self.args.learning_rate = BILSTM_LEARNING_RATE if self.is_bilstm else ENCODER_LEARNING_RATE
        for default in (ProgressCallback, PrinterCallback):
            self.remove_callback(default)
        if not self.args.disable_tqdm:
            self.add_callback(ProgressBars)
        if columns is None:
            columns = {key: name for task in TASKS.values() for key, name in task.columns.items()}
        self.add_callback(EpochReport(columns))
        self.has_sparse_gradients = False
        self.graphs: GraphedSteps | None = None
        if self._uses_graphs():
            multiple = self.data_collator.pad_to_multiple_of or PAD_TO
            self.data_collator = replace(self.data_collator, pad_to_multiple_of=multiple)
        self.average = None if self.args.ema_decay is None else WeightAverage(self.model, self.args.ema_decay)
        if self.average is not None:
            self.add_callback(self.average)

    @property
    def epoch_report(self) -> EpochReport:
        """Return the callback that reports the epochs; `Trainer` may replace it when it resumes."""
        return next(each for each in self.callback_handler.callbacks if isinstance(each, EpochReport))

    def train(self, resume_from_checkpoint: str | bool | None = None, *args, **kwargs) -> TrainOutput:
        """Train like `Trainer`. With `ema_decay`, the model has the average of the weights afterwards.

        Raises:
            ValueError: if the checkpoint is of a run with other settings, or a loss, a gradient or a weight is not
                finite.
        """
        if resume_from_checkpoint is True:
            resume_from_checkpoint = newest_checkpoint(self.args.output_dir)
        if resume_from_checkpoint or self.args.save_strategy != "no":
            self.settings = run_settings(self, self.choices)
        if resume_from_checkpoint:
            check_settings(Path(resume_from_checkpoint), self.settings)
        check_finite(self.model)
        try:
            with training_threads(self.model) if self.args.device.type == "cpu" else nullcontext():
                output = super().train(resume_from_checkpoint, *args, **kwargs)
        finally:
            self.graphs = None  # they hold memory, and parameters may move before another training
        if self.average is not None and not self.args.load_best_model_at_end:  # else the checkpoint had the average
            self.average.exchange(self.model)
        self._check_weights()
        return output

    def evaluate(self, *args, **kwargs) -> dict[str, float]:
        """Evaluate like `Trainer`. During a training with `ema_decay`, the average of the weights is evaluated."""
        if self.is_in_train:
            self._check_weights()
        with self._averaged():
            metrics = super().evaluate(*args, **kwargs)
        if self.is_in_train:
            for key in ("loss", self.args.metric_for_best_model):
                self._check_finite(f"the validation {key}", metrics.get(f"eval_{key}", 0.0))
        return metrics

    def prediction_step(self, model, inputs, prediction_loss_only, ignore_keys=None):
        """Predict like `Trainer`; metrics of this package get the best paths of a CRF, too, unless they are ignored."""
        own = self.preprocess_logits_for_metrics is not None or hasattr(self.compute_metrics, "scores")
        if ignore_keys is None and own:
            ignored = getattr(self.model.config, "keys_to_ignore_at_inference", [])
            ignore_keys = [key for key in ignored if key != "predictions"]
        return super().prediction_step(model, inputs, prediction_loss_only, ignore_keys)

    def train_and_score(
        self,
        inputs: Mapping[str, Dataset],
        scorers: Mapping[str, Callable],
        tokenizers: Mapping[str, PreTrainedTokenizerBase] = MappingProxyType({}),
    ) -> tuple[PredictionOutput, dict[str, float]]:
        """Train, resuming if the arguments ask for it, save the model, and then score it.

        Args:
            inputs: encoded rows of the splits `train`, `validation` and, if there is one, `test`.
            scorers: the `compute_metrics` of each split.
            tokenizers: further tokenizers to save with the model, by their folders in it.

        Returns:
            The predictions of the best model for the validation split, and the figures of the run: `eval_...`,
            `test_...`, those of [`training_summary`], number of parameters and seed.

        Raises:
            FileNotFoundError, ValueError: see [`checkpoint_to_resume`] and `train`, and if `do_predict` is true without
                test data.
        """
        if self.args.do_predict and "test" not in inputs:
            raise ValueError(
                "do_predict is True, but there are no test data: name them with test_file, or leave it out"
            )
        self.train(resume_from_checkpoint=checkpoint_to_resume(self.args))
        if self.is_world_process_zero():
            save_model(self, tokenizers)
        self.save_state()
        seconds, better = self.epoch_report.seconds, max if self.args.greater_is_better else min
        results = training_summary(self.state.log_history, seconds, self.args.metric_for_best_model, better)
        scores = [entry for entry in self.state.log_history if "eval_loss" in entry]
        results["selected_from"] = len(scores) if self.args.load_best_model_at_end else min(1, len(scores))
        results |= {"parameters": self.model.num_parameters(), "seed": self.args.seed}
        # The final scores need the predictions of the whole split, whatever was evaluated in training.
        self.args.prediction_loss_only, self.args.eval_do_concat_batches = False, True
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
        columns, arguments = self.epoch_report.columns, self.args
        curves = {key: f"validation {name}" for key, name in columns.items()} if training_columns else columns
        save_run(self, settings, results, predictions, curves, training_columns)
        print_scores(results, columns, arguments.metric_for_best_model, arguments.output_dir)

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
            loss = super().training_step(model, inputs, num_items_in_batch)
            if loss.device.type == "cpu":  # elsewhere the host would wait for the device: `log` checks the mean loss
                self._check_finite("the loss", loss.item(), self.state.global_step + 1)
            return loss
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
        factor = VECTOR_FACTOR if name.endswith("word_vectors.weight") else ROW_UPDATE_FACTOR if by_rows else 1
        default = self.args.learning_rate * factor
        return default if rate is None else rate

    def create_scheduler(
        self, num_training_steps: int, optimizer: torch.optim.Optimizer | None = None
    ) -> torch.optim.lr_scheduler.LRScheduler:
        """Create the schedule of `learning_rate_decay`, or that of `lr_scheduler_type` without it."""
        decay = self.args.learning_rate_decay
        if decay is None or self.lr_scheduler is not None:
            try:
                return super().create_scheduler(num_training_steps, optimizer)
            except TypeError as error:
                raise ValueError(f"lr_scheduler_kwargs is {self.args.lr_scheduler_kwargs}: {error}") from None
        count = math.floor if self.args.dataloader_drop_last else math.ceil
        batches = count(len(self.train_dataset) / (self.args.train_batch_size * self.args.world_size))
        steps_per_epoch = max(1, math.ceil(batches / self.args.gradient_accumulation_steps))
        optimizer = self.optimizer if optimizer is None else optimizer
        self.lr_scheduler = LambdaLR(optimizer, lambda step: decay ** (step // steps_per_epoch))
        self._created_lr_scheduler = True  # makes a second `train` create a new one
        return self.lr_scheduler

    def _averaged(self) -> AbstractContextManager:
        if self.average is None or not self.is_in_train:
            return nullcontext()
        return self.average.applied(self.model)

    def log(self, logs: dict[str, float], *args, **kwargs) -> None:
        """Log like `Trainer`; raise ValueError if the loss or, unless float16 is scaled, the gradient is not finite."""
        for name, key in (("the loss", "loss"), ("the norm of the gradient", "grad_norm")):
            if key in logs and self.args.fp16 and key == "grad_norm" and not math.isfinite(logs[key]):
                del logs[key]  # the scaler of float16 skips such a step
            self._check_finite(name, logs.get(key, 0.0))
        super().log(logs, *args, **kwargs)

    def _check_finite(self, name: str, value: float, step: int | None = None) -> None:
        """Raise ValueError if `value` is not finite."""
        if not math.isfinite(value):
            where = f"in step {step}" if step else f"by step {self.state.global_step}"
            raise ValueError(
                f"{name} is {value} {where}: training stops and saves no model. Lower the learning rate "
                f"({self.args.learning_rate:g}) or max_grad_norm, or check the data; earlier checkpoints stay usable"
            )

    def _check_weights(self) -> None:
        """Raise ValueError if a weight is not finite."""
        finite = torch.stack([parameter.isfinite().all() for parameter in self.model.parameters()])
        if not finite.all():
            self._check_finite("a weight", math.nan)

    def _save_checkpoint(self, model: torch.nn.Module, trial: Any) -> None:
        self._check_weights()
        folder = Path(self._get_output_dir(trial), f"checkpoint-{self.state.global_step}")
        if self.args.should_save:
            remove_later_checkpoints(folder.parent, self.state.global_step)
            shutil.rmtree(folder, ignore_errors=True)  # else files of another run would complete an interrupted save
            folder.mkdir(parents=True)
            save_settings(folder, self.settings)
        self.accelerator.wait_for_everyone()
        try:
            with self._averaged():
                super()._save_checkpoint(model, trial)
        except (OSError, RuntimeError, SafetensorError) as error:  # torch and safetensors do not name the file
            shutil.rmtree(folder, ignore_errors=True)
            raise OSError(f"{folder}: the checkpoint could not be saved, is the disk full? ({error})") from error

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
        norm = super()._get_grad_norm(model, grad_norm)
        if isinstance(norm, torch.Tensor) and norm.device.type == "cpu":
            self._check_finite("the norm of the gradient", norm.item(), self.state.global_step + 1)
        return norm

    def _get_train_sampler(self, train_dataset: Dataset | None = None) -> torch.utils.data.Sampler | None:
        dataset = self.train_dataset if train_dataset is None else train_dataset
        if self.args.train_sampling_strategy != "group_by_length" or not hasattr(dataset, "__len__"):
            return super()._get_train_sampler(dataset)
        seed = self.args.seed if self.args.data_seed is None else self.args.data_seed
        if isinstance(dataset, Dataset):
            ids = dataset.select_columns("input_ids").with_format("arrow")[:]["input_ids"]
            lengths = pc.list_value_length(ids).to_pylist()  # without a list of integers for each row
        else:
            lengths = [len(row["input_ids"]) for row in dataset]
        # The rows of one update, so that neither accumulation nor the number of processes changes the order.
        batch_size = self.args.train_batch_size * self.args.gradient_accumulation_steps * self.args.world_size
        return EpochLengthGroupedSampler(batch_size, lengths, seed)

    def _get_dataloader(self, *args, is_training: bool = False, **kwargs) -> torch.utils.data.DataLoader:
        """Keep the last batch of an evaluation: `dataloader_drop_last` is for training."""
        drop_last = self.args.dataloader_drop_last
        self.args.dataloader_drop_last = drop_last and is_training
        try:
            return super()._get_dataloader(*args, is_training=is_training, **kwargs)
        finally:
            self.args.dataloader_drop_last = drop_last

    def _get_eval_sampler(self, eval_dataset: Dataset) -> torch.utils.data.Sampler | None:
        """Return rows in their order: `Trainer` would group them by length and change the order of predictions."""
        return SequentialSampler(eval_dataset) if self.args.world_size <= 1 else None


def _labels_tokens(dataset: Any) -> bool:
    """Return whether the rows of a data set have a label for each token."""
    row = None if dataset is None else next(iter(dataset), None)
    return isinstance(row, Mapping) and isinstance(row.get("labels"), Sequence)
