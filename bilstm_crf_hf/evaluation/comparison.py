"""Comparison of finished runs: systems with their spread over seeds, paired bootstrap, and the tables of a report.

Runs whose folders differ in `-seed42` only belong to one system.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations, zip_longest
from statistics import mean, stdev
from typing import Any, NamedTuple

import numpy as np
from scipy.stats import bootstrap

from ..alignment import render
from .errors import ERROR_KINDS, error_counts
from .markdown import Cell, Rows, formatted
from .runs import PREDICTIONS, Run
from .tasks import TAGGING, Task

RESAMPLES = 2000
"""Resamples of the bootstrap."""
BATCH = 50
"""Resamples that are scored at a time, which limits the memory."""


# Systems


@dataclass(frozen=True)
class System:
    """The runs of a system, in the order of their seeds."""

    name: str
    runs: list[Run]

    @property
    def task(self) -> Task:
        """Return the task of the runs."""
        return self.runs[0].task

    @property
    def best(self) -> Run:
        """Return the run with the highest main score."""
        return max(self.runs, key=lambda run: run.score)

    @property
    def score(self) -> float:
        """Return the mean of the main score over the runs."""
        return self.mean(self.task.main_metric)

    def mean(self, name: str) -> float:
        """Return the mean of a score over the runs; one that a run lacks (F1 of a type it never met) counts as 0."""
        return mean(run.scores.get(name, 0.0) for run in self.runs)

    def deviation(self, name: str) -> float | None:
        """Return the standard deviation of a score over the runs (n - 1 degrees of freedom), None for a single run."""
        return stdev(run.scores.get(name, 0.0) for run in self.runs) if len(self.runs) > 1 else None


def group_runs(runs: Sequence[Run]) -> list[System]:
    """Group runs by system, the best system first.

    Raises:
        ValueError: if runs differ in their task or validation sentences, or two have the same system and seed.
    """
    systems: dict[str, dict[int, Run]] = {}
    for run in runs:
        _check_comparable(runs[0], run)
        others = systems.setdefault(run.system, {})
        if run.seed in others:
            raise ValueError(
                f"{others[run.seed].folder} and {run.folder} are both runs of {run.system} with seed {run.seed}: "
                "leave one out, or rename its folder"
            )
        others[run.seed] = run
    grouped = [System(name, [by_seed[seed] for seed in sorted(by_seed)]) for name, by_seed in systems.items()]
    return sorted(grouped, key=lambda system: -system.score)


def _check_comparable(first: Run, run: Run) -> None:
    if run.task is not first.task:
        raise ValueError(f"{first.folder} is a run of {first.task.title}, {run.folder} of {run.task.title}")
    pairs = zip_longest(_rendered_gold(run), _rendered_gold(first), fillvalue="no line")
    for number, (ours, theirs) in enumerate(pairs, 1):
        if ours != theirs:
            raise ValueError(
                f"{run.folder / PREDICTIONS}:{number}: {ours!r} differs from {theirs!r} in {first.folder}: "
                "compare runs on the same validation sentences"
            )


def _rendered_gold(run: Run) -> Iterator[str]:
    """Yield each text with its gold label."""
    for text, gold in zip(run.predictions.texts, run.predictions.gold, strict=True):
        yield render(text, gold) if run.task is TAGGING else f"{gold}: {text}"


# Paired bootstrap


class Difference(NamedTuple):
    """The difference of two scores with its 95 % interval, and the share of resamples in which its sign turns."""

    difference: float
    low: float
    high: float
    p: float


def count_labels(system: System, labels: Sequence[str]) -> np.ndarray:
    """Count the right, predicted and gold labels of each sentence, added up over the runs: (sentences, labels, 3).

    The entities of taggers are counted together, for the micro average: (sentences, 1, 3).
    """
    counts = []
    for _, *sides in (run.predictions for run in system.runs):
        if system.task is TAGGING:
            pairs = zip(*sides, strict=True)
            rows = [[(len({*gold} & {*predicted}), len(predicted), len(gold))] for gold, predicted in pairs]
            counts.append(np.array(rows))
        else:
            gold, predicted = (np.array(side)[:, None] == np.array(labels) for side in sides)
            counts.append(np.stack([gold & predicted, predicted, gold], axis=-1).astype(int))
    return np.sum(counts, axis=0)


def f1_of_counts(counts: np.ndarray) -> np.ndarray:
    """Return the mean F1 over the labels that occur, 0 if none does, from counts (..., labels, 3)."""
    right, predicted, gold = np.moveaxis(counts, -1, 0)
    occurs = predicted + gold > 0
    f1 = 2 * right / np.maximum(predicted + gold, 1)
    return f1.sum(-1) / np.maximum(occurs.sum(-1), 1)


def bootstrap_difference(
    first: np.ndarray, second: np.ndarray, resamples: int = RESAMPLES, seed: int = 0
) -> Difference:
    """Compute the difference of the F1 of two systems with a paired bootstrap over sentences.

    Sentences are drawn with replacement, the same ones for both systems (Koehn, 2004; Berg-Kirkpatrick et al., 2012).
    A resampled difference of 0 counts as a turned sign. `first` and `second` are results of `count_labels`.
    """
    both = np.stack([first, second], axis=1)

    def statistic(sentences: np.ndarray, axis: int = -1) -> np.ndarray:
        return np.subtract(*np.moveaxis(f1_of_counts(both[sentences].sum(-4)), -1, 0))

    sentences = np.arange(len(both))
    options = {"vectorized": True, "method": "percentile", "rng": np.random.default_rng(seed)}
    result = bootstrap((sentences,), statistic, n_resamples=resamples, batch=BATCH, **options)
    difference = float(statistic(sentences))
    low, high = map(float, result.confidence_interval)
    return Difference(difference, low, high, float((result.bootstrap_distribution * difference <= 0).mean()))


# Tables


class Speed(NamedTuple):
    """The speed of a pipeline on the CPU: median time of a single sentence, and throughput in batches."""

    milliseconds: float
    sentences_per_second: float


def labels_of_runs(systems: Sequence[System]) -> list[str]:
    """Return the entity types, or classes, that occur in any of the runs."""
    names = {name for system in systems for run in system.runs for name in run.scores}
    return sorted(name.removesuffix("_number") for name in names if name.endswith("_number"))


def tables_of(systems: Sequence[System], speeds: dict[str, Speed]) -> dict[str, Rows]:
    """Return the tables of a comparison by name; `bootstrap` and `differences` are empty for a single system."""
    labels = labels_of_runs(systems)
    pairs = list(combinations(systems, 2))
    counts = {system.name: count_labels(system, labels) for system in systems} if pairs else {}
    return {
        "systems": [_system_row(system, speeds[system.name]) for system in systems],
        "bootstrap": [_bootstrap_row(a, b, bootstrap_difference(counts[a.name], counts[b.name])) for a, b in pairs],
        "labels": [_label_row(label, systems) for label in labels],
        "errors": _error_rows(systems),
        "runs": [_run_row(system, run) for system in systems for run in system.runs],
        "differences": [row for a, b in pairs for row in _difference_rows(a, b)],
    }


def _system_row(system: System, speed: Speed) -> dict[str, Any]:
    key, name, runs = system.task.main_metric, system.task.main_metric_name, system.runs
    return {
        "system": system.name,
        "runs": len(runs),
        f"mean {name}": system.score,
        "standard deviation": system.deviation(key),
        f"best {name}": system.best.score,
        **({} if system.task is TAGGING else {"accuracy": system.mean("accuracy")}),
        f"mean {name} of all epochs": mean(run.summary[f"mean_{key}"] for run in runs),
        "s an epoch": formatted(mean(run.results["seconds_per_epoch"] for run in runs), ",.1f"),
        "training, s": formatted(mean(run.seconds for run in runs), ",.0f"),
        "parameters": system.best.results["parameters"],
        "file, MB": formatted(system.best.weight_bytes / 1e6, ",.1f"),
        "one sentence, ms": formatted(speed.milliseconds, ",.1f"),
        "sentences a second": formatted(speed.sentences_per_second, ",.0f"),
    }


def _run_row(system: System, run: Run) -> dict[str, Any]:
    key, name = run.task.main_metric, run.task.main_metric_name
    return {
        "system": system.name,
        "seed": formatted(run.seed, "d"),
        name: run.score,
        f"best {name} of the epochs": run.summary[f"best_{key}"],
        "in epoch": formatted(run.summary["best_epoch"], "g"),
        f"mean {name} of the epochs": run.summary[f"mean_{key}"],
        "s an epoch": formatted(run.results["seconds_per_epoch"], ",.1f"),
        "training, s": formatted(run.seconds, ",.0f"),
        "folder": str(run.folder),
    }


def _bootstrap_row(first: System, second: System, result: Difference) -> dict[str, Any]:
    return {
        "systems": f"{first.name} − {second.name}",
        f"difference of {first.task.main_metric_name}": result.difference,
        "95 % from": result.low,
        "to": result.high,
        "p": Cell(result.p, f"{result.p:.3f}" if result.p else f"\\< {1 / RESAMPLES:g}"),
    }


def _label_row(label: str, systems: Sequence[System]) -> dict[str, Any]:
    number = max(run.scores.get(f"{label}_number", 0) for system in systems for run in system.runs)
    scores = {system.name: system.mean(f"{label}_f1") for system in systems}
    return {systems[0].task.label: label, "gold": int(number)} | scores


def _error_rows(systems: Sequence[System]) -> Rows:
    """Return one row per kind of error, of classifiers one for each of the ten most frequent confusions."""
    counts = {system.name: [error_counts(run) for run in system.runs] for system in systems}
    if systems[0].task is TAGGING:
        meanings = {"right": "type and both ends"} | ERROR_KINDS
    else:
        total = sum((count for runs in counts.values() for count in runs), Counter())
        confusions = [name for name, _ in total.most_common(11) if name != "right"][:10]
        meanings = {"right": "the gold class"} | dict.fromkeys(confusions, "gold → predicted")
    return [
        {"error": name, "what": meaning}
        | {system: mean(count[name] for count in runs) for system, runs in counts.items()}
        for name, meaning in meanings.items()
    ]


def _difference_rows(first: System, second: System) -> Iterator[dict[str, Any]]:
    """Yield the sentences that exactly one of two systems has completely right, in its best run."""
    runs = {first.name: first.best.predictions, second.name: second.best.predictions}
    texts, golds, _ = first.best.predictions
    for i, (text, gold) in enumerate(zip(texts, golds, strict=True)):
        right = [name for name, predictions in runs.items() if predictions.predicted[i] == gold]
        if len(right) != 1:
            continue
        (wrong,) = runs.keys() - right
        labels = {"gold": gold, "predicted": runs[wrong].predicted[i]}
        if first.task is TAGGING:
            labels = {side: render(text, spans) for side, spans in labels.items()}
        yield {"line": i + 1, "right": right[0], "wrong": wrong, "text": text} | labels
