"""Arguments that a training refuses before it starts: values out of bounds, and those that it could not honour."""

import math
from collections.abc import Callable
from typing import Any

from transformers import TrainingArguments
from transformers.debug_utils import DebugOption
from transformers.integrations import get_available_reporting_integrations

SAMPLERS = ("random", "sequential", "group_by_length", "batch_rebalance")
LOW_RANK = ("galore", "apollo")
TORCH_OPTIMIZERS = {
    "sgd": {"momentum", "dampening", "weight_decay", "nesterov"},
    "adagrad": {"lr_decay", "weight_decay", "eps"},
    "rmsprop": {"momentum", "alpha", "eps", "weight_decay", "centered"},
    **dict.fromkeys(("adamw_torch", "adamw_torch_fused", "adafactor"), frozenset[str]()),
}
"""The names in `optim_args` that `Trainer` reads for optimizers; it passes over others."""
SEED, AT_LEAST_0, AT_LEAST_1 = (0, 2**32 - 1), (0, math.inf), (1, math.inf)

BOUNDS = {
    "seed": SEED,
    "data_seed": SEED,
    "num_train_epochs": AT_LEAST_0,
    "per_device_train_batch_size": AT_LEAST_1,
    "per_device_eval_batch_size": AT_LEAST_1,
    "gradient_accumulation_steps": AT_LEAST_1,
    "eval_accumulation_steps": AT_LEAST_1,
    "learning_rate": AT_LEAST_0,
    "head_learning_rate": AT_LEAST_0,
    "crf_learning_rate": AT_LEAST_0,
    "embedding_learning_rate": AT_LEAST_0,
    "learning_rate_decay": AT_LEAST_0,
    "weight_decay": AT_LEAST_0,
    "max_grad_norm": AT_LEAST_0,
    "label_smoothing_factor": (0, 1),
    "distill_from_self": (0, 1),
    "eval_delay": AT_LEAST_0,
    "save_total_limit": AT_LEAST_1,
    "min_frequency": AT_LEAST_1,
    "max_train_samples": AT_LEAST_1,
    "max_eval_samples": AT_LEAST_1,
    "max_seq_length": AT_LEAST_1,
    "stride": AT_LEAST_0,
    "document_context": AT_LEAST_0,
    "num_examples": AT_LEAST_0,
    "max_unlabeled_samples": AT_LEAST_1,
    "max_unlabeled_characters": AT_LEAST_1,
    "variants": AT_LEAST_0,
    "validation_texts": AT_LEAST_1,
    "vector_size": AT_LEAST_1,
    "window": AT_LEAST_1,
    "min_count": AT_LEAST_1,
    "epochs": AT_LEAST_1,
    "workers": AT_LEAST_1,
    "rounds": AT_LEAST_1,
    "steps": AT_LEAST_1,
    "epoch_sentences": AT_LEAST_1,
    "stream_sentences": AT_LEAST_1,
}
"""The least and the greatest value of arguments of all commands. Other numbers must be finite."""


def _read_by_optimizer(name: str, options: str | None) -> bool:
    given = {option.partition("=")[0].strip() for option in (options or "").split(",") if option}
    return TORCH_OPTIMIZERS.get(name, given) >= given


REFUSED: dict[str, tuple[Callable[[Any], bool], str]] = {
    "batch_eval_metrics": (
        lambda arguments: arguments.batch_eval_metrics,
        "scores need the predictions of all batches at once: leave it out",
    ),
    "debug": (
        lambda arguments: DebugOption.UNDERFLOW_OVERFLOW in arguments.debug,
        "it cannot look into a CRF, and training stops anyway at a loss that is not finite: leave it out",
    ),
    "do_train": (
        lambda arguments: not arguments.do_train,
        "this is a training: leave it out, or score a trained model with num_train_epochs 0",
    ),
    "fp16": (
        lambda arguments: arguments.fp16 and arguments.device.type == "cpu",
        "the CPU would compute in float32: leave it out, or set bf16",
    ),
    "include_for_metrics": (
        lambda arguments: not {"inputs", "loss"}.issuperset(arguments.include_for_metrics),
        "it can have inputs and loss: leave the others out",
    ),
    "label_names": (
        lambda arguments: arguments.label_names not in (None, ["labels"]),
        "the models read the column `labels`: leave it out",
    ),
    "learning_rate_decay": (
        lambda arguments: (
            arguments.learning_rate_decay is not None
            and (arguments.lr_scheduler_type != "linear" or arguments.warmup_steps or arguments.lr_scheduler_kwargs)
        ),
        "it takes the place of lr_scheduler_type, lr_scheduler_kwargs and warmup_steps: leave it or them out",
    ),
    "length_column_name": (
        lambda arguments: arguments.length_column_name != "length",
        "rows are grouped by the lengths of their input_ids: leave it out",
    ),
    "logging_nan_inf_filter": (
        lambda arguments: arguments.logging_nan_inf_filter,
        "training stops at a loss that is not finite, which it would hide: leave it out",
    ),
    "max_steps": (lambda arguments: arguments.max_steps == 0, "0 means no limit: leave it out, or set 1 or more"),
    "optim_args": (
        lambda arguments: not _read_by_optimizer(arguments.optim, arguments.optim_args),
        "the optimizer does not read all of it: "
        + "; ".join(f"{name} reads {', '.join(sorted(read))}" for name, read in TORCH_OPTIMIZERS.items() if read)
        + "; AdamW takes none: set adam_beta1, adam_beta2 and adam_epsilon",
    ),
    "optim_target_modules": (
        lambda arguments: arguments.optim_target_modules and not arguments.optim.startswith(LOW_RANK),
        f"only the optimizers {', '.join(LOW_RANK)} read it: leave it out, or set optim",
    ),
    "report_to": (
        lambda arguments: (
            not {*get_available_reporting_integrations(), "azure_ml", "flyte"}.issuperset(arguments.report_to)
        ),
        "not all of these are installed: install them, or leave it out",
    ),
    "save_steps": (
        lambda arguments: arguments.save_strategy == "steps" and arguments.save_steps <= 0,
        "no checkpoint would be saved: set more, or set save_strategy to no",
    ),
    "train_sampling_strategy": (
        lambda arguments: arguments.train_sampling_strategy not in SAMPLERS,
        f"it must be {' or '.join(SAMPLERS)}",
    ),
}
"""Arguments that `Trainer` accepts and this package could not honour: when, and why or what to do."""


def check_bounds(arguments: Any) -> None:
    """Raise ValueError if a number in a dataclass of arguments is out of its `BOUNDS`, or not finite."""
    for name, value in vars(arguments).items():
        low, high = BOUNDS.get(name, (-math.inf, math.inf))
        if isinstance(value, int | float) and not (low <= value <= high and math.isfinite(value)):
            bounds = "finite" if low < 0 else f"{low} or more" if high == math.inf else f"{low} to {high}"
            raise ValueError(f"{name} is {value}: it must be {bounds}")


def check_arguments(arguments: TrainingArguments, model: Any, rows: Any, compute_metrics: Any, validation: Any) -> None:
    """Raise ValueError for arguments that do not go with the model, the data or the scores.

    Args:
        rows: rows to train on, or None.
        validation: rows to evaluate on, or a dictionary of several such sets, or None.
        compute_metrics: function that Trainer calls with this name. If it has a method `scores`, that returns the names
            of the scores that it computes for any prediction.
    """
    smoothing, metric = arguments.label_smoothing_factor, arguments.metric_for_best_model
    if smoothing and getattr(model, "crf", None) is not None:
        raise ValueError(
            f"label_smoothing_factor is {smoothing}, but it smooths the labels of a softmax while a CRF learns whole "
            "sequences: leave it out, or train a model without a CRF"
        )
    if getattr(arguments, "crf_learning_rate", None) is not None and getattr(model, "crf", None) is None:
        raise ValueError("crf_learning_rate is set, but the model has no CRF: leave it out")
    known = None  # of a function of one's own
    if arguments.prediction_loss_only or compute_metrics is None:
        known = ["loss"] if arguments.eval_strategy != "no" else None
    elif hasattr(compute_metrics, "scores"):
        known = ["loss", *compute_metrics.scores()]
    if known is not None and isinstance(validation, dict):
        known = [f"{name}_{score}" for name in validation for score in known]
    if (
        metric is not None
        and known is not None
        and validation is not None
        and metric.removeprefix("eval_") not in known
    ):
        reason = ", the only one with prediction_loss_only" if arguments.prediction_loss_only else ""
        raise ValueError(f"metric_for_best_model is {metric}: set {', '.join(known)}{reason}")
    count = len(rows) if hasattr(rows, "__len__") else None
    batch = arguments.train_batch_size * arguments.world_size
    if count == 0 or (count is not None and arguments.dataloader_drop_last and count < batch):
        raise ValueError(f"{count} training rows are no batch of {batch}: give more, or lower the batch size")
    if rows is not None and count is None and getattr(arguments, "learning_rate_decay", None) is not None:
        raise ValueError("learning_rate_decay needs the number of rows in an epoch, which these rows do not have")
