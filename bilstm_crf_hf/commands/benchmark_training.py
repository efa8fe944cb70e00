"""Training in `bilstm-crf benchmark`: single steps, whole epochs, and where the time of a step goes."""

import time
from collections.abc import Callable, Iterator
from functools import partial
from statistics import median
from typing import Any

import torch
from torch import Tensor, nn
from torch.profiler import ProfilerActivity, profile
from transformers import PreTrainedModel, TrainerCallback

from ..data.collation import TaggingCollator
from ..data.encoding import EncodedCorpus
from ..training.arguments import TaggerTrainingArguments
from ..training.optimization import RowAdamW, clip_gradients, use_sparse_gradients
from ..training.trainer import TaggerTrainer
from ..utils.timing import medians, seconds_of, synchronize
from .benchmark_models import MAX_LENGTH, Models, TutorialTagger
from .benchmark_processes import conditions_on, spinning, usable_cores, workers

PROFILED_STEPS = 30
"""Training steps that are profiled."""

Batches = list[dict[str, Tensor]]


def new_batches(corpus: EncodedCorpus, count: int, device: str, pad_to: int | None = None) -> Batches:
    """Return batches of 32 sentences of similar length, evenly over all lengths; or at random, padded to `pad_to`."""
    tokenizer, inputs = corpus.processor.tokenizer, corpus.inputs  # sorted by length
    order = torch.randperm(len(inputs)).tolist() if pad_to else range(len(inputs))
    starts = [int((n + 0.5) / count * (len(order) - 32)) for n in range(count)]
    collator = TaggingCollator(tokenizer, padding="max_length" if pad_to else True, max_length=pad_to)
    batches = [collator([inputs[i] for i in order[start : start + 32]]) for start in starts]
    return [{name: values.to(device) for name, values in batch.items()} for batch in batches]


def new_trainer(
    models: Models, model: PreTrainedModel, corpus: EncodedCorpus, sentences: int | None, **options
) -> TaggerTrainer:
    """Return a trainer of an epoch over the first `sentences` (None: all) in random order, in bfloat16 off the CPU."""
    accelerated = models.device != "cpu"
    defaults: dict[str, Any] = {
        "num_train_epochs": 1,
        "eval_strategy": "no",
        "save_strategy": "no",
        "load_best_model_at_end": False,
        "report_to": "none",
        "disable_tqdm": True,
        "use_cpu": not accelerated,
        "bf16": accelerated,
    }
    rows, tokenizer = corpus.inputs.shuffle(seed=0), corpus.processor.tokenizer
    return TaggerTrainer(
        model,
        TaggerTrainingArguments(str(models.folder), **(defaults | options)),
        columns={},
        data_collator=TaggingCollator(tokenizer),
        train_dataset=rows if sentences is None else rows.select(range(min(sentences, len(rows)))),
        processing_class=tokenizer,
    )


def training_steps(
    model: nn.Module, batches: Batches, optimizer: torch.optim.Optimizer, clip: Callable[[list[nn.Parameter]], object]
) -> Callable[[], None]:
    """Return a training loop over batches, without what `Trainer` does around it."""
    parameters = list(model.train().parameters())

    def steps() -> None:
        for batch in batches:
            model(**batch)["loss"].backward()
            clip(parameters)
            optimizer.step()
            optimizer.zero_grad()

    return steps


def our_steps(model: PreTrainedModel, batches: Batches) -> Callable[[], None]:
    """Return a training loop with the optimizer and the clipping of `TaggerTrainer`."""
    if model.device.type == "cpu":
        use_sparse_gradients(model)
    optimizer = RowAdamW(model.parameters(), lr=1e-3, fused=True)
    return training_steps(model, batches, optimizer, partial(clip_gradients, max_norm=5.0))


def step_rows(models: Models, steps: int, rounds: int) -> Iterator[dict]:
    """Yield the time of a step of 32 sentences of each model and of the tutorial's loop, in float32."""
    characters, pieces, device = models.characters, models.pieces, models.device
    padded = new_batches(pieces, steps, device, pad_to=MAX_LENGTH)
    tutorial = TutorialTagger(len(models.piece_tokenizer), len(models.labels)).to(device)
    adam, clip = torch.optim.Adam(tutorial.parameters(), lr=1e-3), partial(nn.utils.clip_grad_norm_, max_norm=1.0)
    sentences = min(len(characters.inputs), 4 * 32 * steps)  # some of Trainer's work is per run
    trainers = {
        "tutorial's model, Trainer": new_trainer(models, models.tutorial(), pieces, sentences, bf16=False),
        "default model, Trainer": default_trainer(models, sentences),
    }
    candidates = {
        "tutorial's loop": training_steps(tutorial, padded, adam, clip),
        "tutorial's model": our_steps(models.tutorial(), new_batches(pieces, steps, device)),
        "default model": our_steps(models.default(), new_batches(characters, steps, device)),
    }
    seconds = medians(candidates | {name: trainer.train for name, trainer in trainers.items()}, rounds)
    step = {name: 32 * value / (sentences if name in trainers else 32 * steps) for name, value in seconds.items()}
    if device == "cpu":
        busy = seconds_by_condition(partial(default_trainer, models, sentences), rounds)
        step |= {f"default model, Trainer, {name}": 32 * value / sentences for name, value in busy.items()}
    for name, value in step.items():
        yield {
            "what": name,
            "sentences a second": 32 / value,
            "ms a step of 32": 1e3 * value,
            "times the tutorial's loop": step["tutorial's loop"] / value,
        }


def default_trainer(models: Models, sentences: int) -> TaggerTrainer:
    """Return a trainer of the default model in float32."""
    return new_trainer(models, models.default(), models.characters, sentences, bf16=False)


def seconds_by_condition(load: Callable[[], TaggerTrainer], rounds: int) -> dict[str, float]:
    """Return the median seconds of a training under the conditions of [`conditions_on`]."""
    conditions = conditions_on(usable_cores())
    seconds: dict[str, list[float]] = {name: [] for name in conditions}
    with workers(load, conditions) as run:
        for train in run.values():
            train(seconds_of_training)  # once, to warm up
        for _ in range(rounds):
            for name, condition in conditions.items():
                with spinning(condition.spinning):
                    seconds[name].append(run[name](seconds_of_training))
    return {name: median(values) for name, values in seconds.items()}


def seconds_of_training(trainer: TaggerTrainer) -> float:
    """Return the seconds of a training; this runs in a process that measures."""
    return seconds_of(trainer.train)


def epoch_rows(models: Models, sentences: int | None) -> Iterator[dict]:
    """Yield the time of an epoch by `Trainer` of each model and of BERT-base, in bfloat16 off the CPU.

    The second epoch of two is timed, since the first one loads kernels. With `sentences`, the time is estimated
    from this number of sentences.
    """
    candidates = {
        "BERT-base, token head": (models.bert, models.pieces, {}),
        "BERT-base, CRF": (models.bert_crf, models.pieces, {}),
        "tutorial's model": (models.tutorial, models.pieces, {}),
        "default model": (models.default, models.characters, {}),
        "default model, float32": (models.default, models.characters, {"bf16": False}),
    }
    bert = None
    for name, (build, corpus, options) in candidates.items():
        trainer = new_trainer(models, build(), corpus, sentences, num_train_epochs=2, **options)
        trainer.train()
        timed = trainer.epoch_report.seconds[-1]
        seconds = timed * len(corpus.inputs) / len(trainer.train_dataset)
        bert = bert or seconds
        yield {
            "what": name,
            "seconds an epoch": seconds,
            "steps a second": trainer.state.max_steps / 2 / timed,
            "times BERT-base with a token head": bert / seconds,
        }


def profile_rows(models: Models) -> Iterator[dict]:
    """Yield where the time of a step by `Trainer` goes; write the whole tables to profile.txt."""
    accelerated = models.device != "cpu"
    by = "self_device_time_total" if accelerated else "self_cpu_time_total"
    candidates: dict[str, tuple[Callable[[], PreTrainedModel], EncodedCorpus, dict[str, Any]]]
    candidates = {"default model": (models.default, models.characters, {})}
    if accelerated:
        candidates["default model, no CUDA graphs"] = (models.default, models.characters, {"cuda_graphs": False})
        candidates["BERT-base, token head"] = (models.bert, models.pieces, {})
    tables = []
    for name, (build, corpus, options) in candidates.items():
        profiled = ProfiledSteps(accelerated)
        trainer = new_trainer(models, build(), corpus, None, max_steps=profiled.end, **options)
        trainer.add_callback(profiled)
        trainer.train()
        events = profiled.profiler.key_averages()
        tables += [name]
        tables += [events.table(sort_by=key, row_limit=50) for key in dict.fromkeys((by, "self_cpu_time_total"))]
        # The time of a range that PyTorch has named is that of kernels which are events themselves, and of the gaps.
        work = [event for event in events if accelerated == (event.device_type.name == "CUDA")]
        busy = sum(getattr(event, by) for event in work if not (accelerated and event.is_user_annotation))
        yield {
            "what": name,
            "ms a step by Trainer": 1e3 * profiled.seconds / PROFILED_STEPS,
            f"ms of {models.device} busy": busy / 1e3 / PROFILED_STEPS,
            "launches": sum(event.count for event in events if "Launch" in event.key) / PROFILED_STEPS,
        }
    (models.folder / "profile.txt").write_text("\n".join(tables), encoding="utf-8")


class ProfiledSteps(TrainerCallback):
    """A callback that times `PROFILED_STEPS` steps, and profiles as many, once the first steps have loaded kernels."""

    def __init__(self, accelerated: bool) -> None:
        self.warm_up = 150 if accelerated else 5
        self.end = self.warm_up + 2 * PROFILED_STEPS
        self.profiler = profile(activities=[ProfilerActivity.CPU] + [ProfilerActivity.CUDA] * accelerated)
        self.seconds = 0.0

    def on_step_end(self, args, state, control, **kwargs) -> None:
        """Start and stop the clock, then the profiler."""
        if state.global_step == self.warm_up:
            synchronize()
            self.seconds -= time.perf_counter()
        elif state.global_step == self.warm_up + PROFILED_STEPS:
            synchronize()
            self.seconds += time.perf_counter()
            self.profiler.start()
        elif state.global_step == self.end:
            synchronize()
            self.profiler.stop()
