"""What the recipes share around `Trainer`: arguments, learning rates by part, batches by length, reports."""

import json
import logging
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
import yaml
from torch.optim.lr_scheduler import LambdaLR
from torch.utils.data import Dataset, SequentialSampler
from transformers import (
    HfArgumentParser,
    Trainer,
    TrainingArguments,
)
from transformers.trainer_callback import PrinterCallback, ProgressCallback
from transformers.trainer_pt_utils import LengthGroupedSampler
from transformers.trainer_utils import PredictionOutput, TrainOutput

from ..evaluation.runs import training_summary
from ..hub.publishing import prepare, send
from .averaging import WeightAverage
from .graphs import PAD_TO, GraphedSteps
from .optimization import RowAdamW, clip_gradients, large_embeddings, use_sparse_gradients

logger = logging.getLogger(__name__)

BILSTM_LEARNING_RATE, ENCODER_LEARNING_RATE = 2e-3, 5e-5
ROW_UPDATE_FACTOR = 5


@dataclass
class TaggerTrainingArguments(TrainingArguments):
    """`TrainingArguments` with defaults that suit a BiLSTM-CRF, and learning rates of their own for its parts.

    Args:
        learning_rate: None for 2e-3 if the model is a BiLSTM-CRF and 5e-5 if it is not.
        learning_rate_decay: factor of all learning rates after each epoch, in place of `lr_scheduler_type`: PyTorch's
            ExponentialLR.
        head_learning_rate: of all that lies on a pretrained encoder; None for `learning_rate`. A new head on a small
            encoder wants ten to thirty times the encoder's.
        crf_learning_rate: of the CRF's parameters; None for `head_learning_rate`.
        embedding_learning_rate: of the embeddings; None for `learning_rate`, and for five times as much where only the
            rows that a batch looks up are updated (see `optimization.RowAdamW`). Dense AdamW would carry such a row on
            by its momentum, for 1 / (1 - 0.9) steps in all; on KLUE-NER half of that does as well as all of it, and on
            a few hundred sentences better.
        cuda_graphs: whether the steps of a BiLSTM run as CUDA graphs on a single GPU, see `graphs.GraphedSteps`.
            Batches are then padded to a multiple of 8 tokens. Runs in float16 never use graphs.
        ema_decay: of an exponential moving average of the weights, in each step: it is the average that is evaluated,
            saved and kept; None for the weights themselves.
    """

    output_dir: str = "outputs/ner"
    learning_rate: float | None = field(default=None, metadata={"help": "Default: 2e-3, or 5e-5 for an encoder."})
    per_device_train_batch_size: int = 32
    per_device_eval_batch_size: int = 64
    num_train_epochs: float = 6
    weight_decay: float = 0.01
    max_grad_norm: float = 5.0
    eval_strategy: str = "epoch"
    save_strategy: str = "epoch"
    logging_strategy: str = "epoch"
    save_total_limit: int | None = 1
    load_best_model_at_end: bool = True
    metric_for_best_model: str | None = "f1"
    train_sampling_strategy: str = "group_by_length"
    dataloader_pin_memory: bool = torch.accelerator.is_available()
    logging_nan_inf_filter: bool = not torch.accelerator.is_available()  # it waits for the device in every step
    seed: int = 42
    hub_strategy: str = "end"
    learning_rate_decay: float | None = field(
        default=None, metadata={"help": "Factor of the learning rate after each epoch, in place of lr_scheduler_type."}
    )
    head_learning_rate: float | None = field(default=None, metadata={"help": "Learning rate of what is on an encoder."})
    crf_learning_rate: float | None = field(default=None, metadata={"help": "Learning rate of the CRF."})
    embedding_learning_rate: float | None = field(default=None, metadata={"help": "Learning rate of embeddings."})
    ema_decay: float | None = field(
        default=None,
        metadata={"help": "Decay of a moving average of the weights, such as 0.998, which is kept instead."},
    )

    cuda_graphs: bool = field(
        default=True, metadata={"help": "Whether the steps of a BiLSTM run as CUDA graphs on a single GPU."}
    )

    def __post_init__(self) -> None:
        if self.accelerator_config is None and self.dataloader_pin_memory:
            self.accelerator_config = {"non_blocking": True}  # else the host waits for each copy of a batch
        super().__post_init__()
        if self.ema_decay is not None and not 0 < self.ema_decay < 1:
            raise ValueError(f"ema_decay must be between 0 and 1, got {self.ema_decay}")
        if self.push_to_hub and self.hub_strategy != "end":
            raise ValueError("hub_strategy: only `end` is possible, for what is published is checked first, as a whole")
        if self.hub_token is not None:
            raise ValueError(
                "hub_token: every checkpoint would hold it, in training_args.bin: use `hf auth login`, or set HF_TOKEN"
            )


def parse_arguments(types: Sequence[type], argv: Sequence[str]) -> tuple[Any, ...]:
    """Instances of argument dataclasses from `[config.yaml] [--name value ...]`, where names on the line win.

    Raises:
        FileNotFoundError: there is no such configuration file.
        ValueError: a key of the file is not the name of an argument, or the file holds no mapping.
        SystemExit: whatever argparse refuses, with its message.
    """
    parser = HfArgumentParser(types)
    defaults: list[str] = []
    argv = list(argv)
    if argv and not argv[0].startswith("-"):
        path = Path(argv.pop(0))
        if not path.is_file():
            raise FileNotFoundError(f"{path}: no such configuration file")
        values = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
        if not isinstance(values, dict):
            raise ValueError(f"{path}: expected lines `name: value`")
        known = {action.dest for action in parser._actions}
        for name, value in values.items():
            if name not in known:
                raise ValueError(f"{path}: there is no argument {name!r}; --help lists them")
            defaults += _as_arguments(name, value)
    return parser.parse_args_into_dataclasses([*defaults, *argv])


def _as_arguments(name: str, value: Any) -> list[str]:
    """A YAML value as on a command line, where argparse gives it the type of the argument (YAML's 1e-3 is a string)."""
    if value is None:
        return []
    if isinstance(value, list):
        return [f"--{name}", *map(str, value)]
    return [f"--{name}", json.dumps(value) if isinstance(value, dict) else str(value)]


def configure_logging(arguments: TrainingArguments) -> None:
    """Plain lines of information, from one process of several, and none of single HTTP requests."""
    logging.basicConfig(level=logging.INFO if arguments.should_log else logging.WARNING, format="%(message)s")
    logging.getLogger("httpx2").setLevel(logging.WARNING)


def checkpoint_to_resume(arguments: TrainingArguments) -> str | None:
    """The folder that `--resume_from_checkpoint` names; for `true`, the newest complete one in `output_dir`, if any.

    `Trainer` writes `trainer_state.json` last, so a checkpoint without a readable one was interrupted: it is left out,
    with a warning.
    """
    wanted = arguments.resume_from_checkpoint
    if wanted is None or str(wanted).lower() not in ("true", "false"):
        return wanted
    if str(wanted).lower() == "false":
        return None
    folders = Path(arguments.output_dir).glob("checkpoint-*")
    for folder in sorted(folders, key=lambda folder: int(folder.name.split("-")[1]), reverse=True):
        state = folder / "trainer_state.json"
        if state.is_file() and state.read_text(encoding="utf-8").rstrip().endswith("}"):
            return str(folder)
        logger.warning("%s is incomplete (saving it was interrupted): an earlier checkpoint is used", folder)
    return None


class EpochLengthGroupedSampler(LengthGroupedSampler):
    """Batches of similar lengths, drawn from the seed and the number of the epoch alone.

    So a run that is resumed, in mid-epoch too, meets the batches that it would have met, and the processes of a
    distributed run agree on them.
    """

    def __init__(self, batch_size: int, lengths: list[int], seed: int) -> None:
        super().__init__(batch_size, lengths=lengths, generator=torch.Generator())
        self.seed = seed
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def __iter__(self) -> Iterator[int]:
        self.generator.manual_seed(self.seed + self.epoch)
        indices = list(super().__iter__())
        # Grouped indices come longest first, 50 batches at a time. An incomplete batch has to stay the last one.
        whole = len(indices) - len(indices) % self.batch_size
        batches = torch.tensor(indices[:whole], dtype=torch.long).view(-1, self.batch_size)
        shuffled = batches[torch.randperm(len(batches), generator=self.generator)]
        return iter(shuffled.flatten().tolist() + indices[whole:])


class TaggerTrainer(Trainer):
    """`Trainer` with a learning rate for each part of the model, batches grouped by length, and a line an epoch."""

    def __init__(self, *args, columns: dict[str, str], **kwargs) -> None:
        """`columns`: the scores of `compute_metrics` that are shown after each epoch, and how they are called."""
        super().__init__(*args, **kwargs)
        self.is_bilstm = self.model.config.model_type.startswith("bilstm")
        if self.args.learning_rate is None:
            self.args.learning_rate = BILSTM_LEARNING_RATE if self.is_bilstm else ENCODER_LEARNING_RATE
        for default in (ProgressCallback, PrinterCallback):
            self.remove_callback(default)
        self.epoch_report = EpochReport(columns)
        self.add_callback(self.epoch_report)
        self.graphs: GraphedSteps | None = None
        if self._uses_graphs():
            self.data_collator = replace(self.data_collator, pad_to_multiple_of=PAD_TO)
        self.average = None if self.args.ema_decay is None else WeightAverage(self.args.ema_decay)
        if self.average is not None:
            self.add_callback(self.average)

    def train(self, *args, **kwargs) -> TrainOutput:
        """As `Trainer`'s; where weights are averaged, the model has the average afterwards."""
        self.graphs = None  # which hold for parameters where they were
        output = super().train(*args, **kwargs)
        if self.average is not None and not self.args.load_best_model_at_end:  # which loads it from its checkpoint
            self.average.apply(self.model)
        return output

    def evaluate(self, *args, **kwargs) -> dict[str, float]:
        """As `Trainer`'s, of the average of the weights during training."""
        with self._averaged():
            return super().evaluate(*args, **kwargs)

    def train_and_score(
        self, inputs: Mapping[str, Dataset], scorers: Mapping[str, Callable]
    ) -> tuple[PredictionOutput, dict[str, float]]:
        """Trains, resuming if the arguments say so, then scores the best model.

        Args:
            inputs: encoded splits: `train`, `validation`, and `test` if there is one.
            scorers: the `compute_metrics` of each split.

        Returns:
            What the best model predicts on the validation split, and all figures of the run: `eval_...`, `test_...`,
            those of `reporting.training_summary`, sizes and seed.
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
        return outputs["validation"], results

    def push_to_hub(self, commit_message: str | None = None, *, token: str | None = None, **kwargs: Any) -> str | None:
        """Publishes the finished run in `output_dir`, with all checks of `publishing.prepare`; the commit's address.

        It goes to `hub_model_id`, under the tag `hub_revision` (`v1` if there is none). Other arguments of `Trainer`'s
        method of this name have no meaning here.
        """
        if not self.is_world_process_zero():
            return None
        arguments = self.args
        if self.hub_model_id is None:
            self.init_hf_repo(token=token)
        with prepare(
            Path(arguments.output_dir), self.hub_model_id, arguments.hub_revision or "v1", arguments.hub_private_repo
        ) as publication:
            return send(publication, token)

    def create_model_card(self, **kwargs: Any) -> None:
        """Nothing: `push_to_hub` writes a card of the finished run, which `Trainer`'s draft would overwrite."""

    def training_step(self, model, inputs, num_items_in_batch=None) -> torch.Tensor:
        """Compute the loss of a batch and its gradient, by a CUDA graph where one can be used."""
        if num_items_in_batch is not None or not self._uses_graphs():
            return super().training_step(model, inputs, num_items_in_batch)
        if self.graphs is None:
            self.graphs = GraphedSteps(model, partial(super().training_step, model))
        return self.graphs(self._prepare_inputs(inputs), self.current_gradient_accumulation_steps)

    def _uses_graphs(self) -> bool:
        arguments = self.args
        single = arguments.device.type == "cuda" and arguments.n_gpu == 1 and arguments.world_size == 1
        return self.is_bilstm and single and arguments.cuda_graphs and not (arguments.fp16 or arguments.torch_compile)

    def create_optimizer(self, model: torch.nn.Module | None = None) -> torch.optim.Optimizer:
        """AdamW over groups of embeddings, CRF and the rest, each with and without weight decay."""
        if self.optimizer is not None:
            return self.optimizer
        model = self.model if model is None else model
        optimizer_class, options = self.get_optimizer_cls_and_kwargs(self.args, model)
        by_rows: set[str] = set()
        # The scaler of gradients in float16 knows AdamW's own step only.
        if self.is_bilstm and not self.args.fp16 and optimizer_class is torch.optim.AdamW:
            optimizer_class = RowAdamW
            by_rows = set(large_embeddings(model))
            # Elsewhere than on the CPU a dense gradient costs next to nothing, and NCCL reduces no other.
            if self._has_sparse_gradients():
                use_sparse_gradients(model)
        decaying = set(self.get_decay_parameter_names(model))
        groups: dict[tuple[float, float, bool], list[torch.nn.Parameter]] = {}
        for name, parameter in model.named_parameters():
            if parameter.requires_grad:
                decay, rows = self.args.weight_decay if name in decaying else 0.0, name in by_rows
                groups.setdefault((self._rate_of(name, rows), decay, rows), []).append(parameter)
        self.optimizer = optimizer_class(
            [
                {"params": parameters, "lr": rate, "weight_decay": decay, "rows": rows}
                | {"fused": options.get("fused") and not rows}  # else loading moves the count of steps to the device
                for (rate, decay, rows), parameters in groups.items()
            ],
            **options,
        )
        return self.optimizer

    def _has_sparse_gradients(self) -> bool:
        return self.is_bilstm and self.args.device.type == "cpu"

    def _averaged(self) -> AbstractContextManager:
        training = self.average is not None and self.is_in_train
        return self.average.applied(self.model) if training else nullcontext()

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

    def create_scheduler(self, num_training_steps: int, optimizer: torch.optim.Optimizer | None = None):
        decay = self.args.learning_rate_decay
        if decay is None or self.lr_scheduler is not None:
            return super().create_scheduler(num_training_steps, optimizer)
        steps_per_epoch = math.ceil(num_training_steps / self.args.num_train_epochs)
        optimizer = self.optimizer if optimizer is None else optimizer
        self.lr_scheduler = LambdaLR(optimizer, lambda step: decay ** (step // steps_per_epoch))
        self._created_lr_scheduler = True  # by which a second `train` knows to make a new one
        return self.lr_scheduler

    def _clip_grad_norm(self, model: torch.nn.Module) -> torch.Tensor:
        if self._has_sparse_gradients():
            return clip_gradients(model.parameters(), self.args.max_grad_norm)
        return super()._clip_grad_norm(model)

    def _get_grad_norm(self, model: torch.nn.Module, grad_norm: torch.Tensor | None = None) -> torch.Tensor:
        if grad_norm is None and self._has_sparse_gradients():
            grad_norm = clip_gradients(model.parameters(), float("inf"))
        return super()._get_grad_norm(model, grad_norm)

    def _rate_of(self, name: str, by_rows: bool) -> float:
        rate = None
        if name.startswith("crf.") and self.args.crf_learning_rate is not None:
            rate = self.args.crf_learning_rate
        elif not name.startswith(f"{self.model.base_model_prefix}."):
            rate = self.args.head_learning_rate
        elif "embeddings" in name:
            rate = self.args.embedding_learning_rate
        default = self.args.learning_rate * (ROW_UPDATE_FACTOR if by_rows else 1)
        return default if rate is None else rate

    def _get_train_sampler(self, train_dataset: Dataset | None = None) -> torch.utils.data.Sampler | None:
        dataset = self.train_dataset if train_dataset is None else train_dataset
        if self.args.train_sampling_strategy != "group_by_length":
            return super()._get_train_sampler(dataset)
        # All that one update sees, so that neither accumulation nor the number of processes changes the order.
        batch_size = self.args.train_batch_size * self.args.gradient_accumulation_steps * self.args.world_size
        seed = self.args.seed if self.args.data_seed is None else self.args.data_seed
        return EpochLengthGroupedSampler(batch_size, [len(ids) for ids in dataset["input_ids"]], seed)

    def _get_eval_sampler(self, eval_dataset: Dataset) -> torch.utils.data.Sampler | None:
        """In order: `Trainer` would group by length here too, and return predictions in an order of its own."""
        return SequentialSampler(eval_dataset) if self.args.world_size <= 1 else None


class EpochReport(ProgressCallback):
    """Progress bars, and one line an epoch instead of `Trainer`'s dictionaries.

    Attributes:
        seconds: of each epoch's training, evaluation not counted in.
    """

    def __init__(self, columns: dict[str, str]) -> None:
        super().__init__()
        self.columns = columns
        self.seconds: list[float] = []
        self.began: float | None = None  # when the epoch that is under way did

    def on_log(self, args, state, control, logs=None, **kwargs) -> None:
        pass

    def on_epoch_begin(self, args, state, control, **kwargs) -> None:
        self.began = time.perf_counter()

    def on_epoch_end(self, args, state, control, **kwargs) -> None:
        self.seconds.append(time.perf_counter() - self.began)
        self.began = None

    def on_evaluate(self, args, state, control, metrics=None, **kwargs) -> None:
        super().on_evaluate(args, state, control, **kwargs)
        if self.training_bar is None or (self.began is None and not self.seconds):
            return
        seconds = self.seconds[-1] if self.began is None else time.perf_counter() - self.began
        loss = next((entry["loss"] for entry in reversed(state.log_history) if "loss" in entry), float("nan"))
        scores = "".join(f"  {name} {metrics[f'eval_{key}']:.4f}" for key, name in self.columns.items())
        self.training_bar.write(
            f"epoch {state.epoch:.3g}/{state.num_train_epochs:g}  loss {loss:.4f}  "
            f"validation loss {metrics['eval_loss']:.4f}{scores}  {seconds:.1f} s"
        )
