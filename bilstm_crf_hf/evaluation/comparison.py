"""Comparing finished runs: reading them, scores with their spread, paired bootstrap, error classes, tables.

A run is the folder that a recipe leaves: the model with its tokenizer, `all_results.json`, `trainer_state.json` and
`validation_predictions.jsonl` (see `reporting.save_predictions`). Runs of one system differ in their seeds.
"""

import json
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import combinations
from pathlib import Path
from statistics import mean, stdev
from typing import Any, NamedTuple

import numpy as np

from ..alignment import Span, render, tags_from_spans
from .markdown import Rows
from .metrics import ClassificationMetric, TaggingMetric
from .runs import PREDICTIONS, training_summary

RESAMPLES = 2000
ERROR_CLASSES = {
    "boundary": "same type, overlapping, other edges",
    "type": "same span, other type",
    "both": "overlapping, other type and edges",
    "missed": "gold entity without a counterpart",
    "invented": "predicted entity without a counterpart",
}


class Task(NamedTuple):
    """What the runs of a recipe do, and by which of their scores (names as in `all_results.json`) they are ranked."""

    title: str
    pipeline: str
    score: str
    score_name: str
    label: str


NER = Task("named entities", "token-classification", "f1", "F1", "entity type")
CLASSIFICATION = Task("text classification", "text-classification", "macro_f1", "macro F1", "class")


@dataclass(frozen=True)
class Run:
    """A finished run.

    Attributes:
        gold, predicted: of each validation text, its entities in order, or its class.
        results: `all_results.json`.
        history: the log of `trainer_state.json`.
    """

    folder: Path
    task: Task
    texts: list[str]
    gold: list
    predicted: list
    results: dict[str, Any]
    history: list[dict[str, Any]]

    @property
    def system(self) -> str:
        """The folder's name without `-seed42`."""
        return re.sub(r"-seed\d+$", "", self.folder.resolve().name)

    @property
    def seed(self) -> int:
        return self.results["seed"]

    @property
    def score(self) -> float:
        return self.scores[self.task.score]

    @property
    def bytes(self) -> int:
        """Size of the weights."""
        return sum(path.stat().st_size for path in self.folder.glob("*.safetensors"))

    @cached_property
    def scores(self) -> dict[str, float]:
        """Those of `metrics.TaggingMetric` on characters, or of `metrics.ClassificationMetric`."""
        if self.task is CLASSIFICATION:
            return ClassificationMetric().compute(predictions=self.predicted, references=self.gold)
        predicted, gold = (
            [tags_from_spans(spans, len(text)) for text, spans in zip(self.texts, answers, strict=True)]
            for answers in (self.predicted, self.gold)
        )
        return TaggingMetric().compute(predictions=predicted, references=gold)

    @cached_property
    def summary(self) -> dict[str, float]:
        """Best and mean score over the epochs, see `reporting.training_summary`."""
        return training_summary(self.history, [], self.task.score)

    @property
    def curve(self) -> list[tuple[float, float]]:
        """Epochs and their scores."""
        key = f"eval_{self.task.score}"
        return [(entry["epoch"], entry[key]) for entry in self.history if key in entry]

    @property
    def seconds(self) -> float:
        """Of training in all. Not `train_seconds`, which counts the epochs after an interruption only."""
        return self.results["seconds_per_epoch"] * max(entry["epoch"] for entry in self.history)


# Reading


def read_run(folder: Path) -> Run:
    """The run in a folder.

    Raises:
        FileNotFoundError: a file is missing, so that the run is not finished, or older than these files.
        ValueError: a file is damaged, or the files do not belong together.
    """
    results = _read_json(folder / "all_results.json", "seed", "parameters", "seconds_per_epoch")
    history = _read_json(folder / "trainer_state.json", "log_history")["log_history"]
    run = Run(folder, *_read_predictions(folder / PREDICTIONS), results, history)
    if not run.curve:
        raise ValueError(f"{folder / 'trainer_state.json'}: no eval_{run.task.score} in it: evaluate while training")
    if not run.bytes:
        raise FileNotFoundError(f"{folder}: there are no weights (*.safetensors) in it: train again")
    score = f"eval_{run.task.score}"
    if abs(results.get(score, -1) - run.score) > 1e-6:
        raise ValueError(
            f"{folder / PREDICTIONS} gives a {run.task.score} of {run.score:.6f}, but all_results.json says {score} "
            f"{results.get(score)}: the files are not of the same run, train again"
        )
    return run


def _require(path: Path) -> None:
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file. Name the folder of a finished run, or train this one (again)")


def _read_json(path: Path, *keys: str) -> dict[str, Any]:
    _require(path)
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except json.JSONDecodeError as error:
        raise ValueError(f"{path}: damaged ({error}): delete the folder and train again") from None
    if missing := [key for key in keys if key not in values]:
        raise ValueError(f"{path}: there is no {', '.join(missing)} in it: train again with this version's recipes")
    return values


def _read_predictions(path: Path) -> tuple[Task, list[str], list, list]:
    _require(path)
    task, columns = None, {"text": [], "gold": [], "predicted": []}
    with path.open(encoding="utf-8") as lines:
        for number, line in enumerate(lines, 1):
            try:
                row = json.loads(line)
                kind = _task_of(row)
                if kind is not (task or kind):
                    raise ValueError(f"{kind.title} in a file of {task.title}")
                task = kind
                for name, values in columns.items():
                    is_spans = kind is NER and name != "text"
                    values.append(_spans(row[name], row["text"]) if is_spans else row[name])
            except (ValueError, TypeError) as error:
                raise ValueError(f"{path}:{number}: {error}: train again, or correct what wrote the file") from None
    if task is None:
        raise ValueError(f"{path}: no sentence in it: train again with a validation split")
    return task, *columns.values()


def _task_of(row: Any) -> Task:
    if isinstance(row, dict) and isinstance(row.get("text"), str):
        for task, kind in ((NER, list), (CLASSIFICATION, str)):
            if isinstance(row.get("gold"), kind) and isinstance(row.get("predicted"), kind):
                return task
    raise ValueError("expected `text`, and `gold` and `predicted`, both lists of [start, end, label] or both labels")


def _spans(items: list, text: str) -> list[Span]:
    """The entities of a row in order; they lie in the text and do not overlap, or it is a ValueError."""
    spans = sorted(Span(*item) for item in items)
    tags_from_spans(spans, len(text))
    return spans


# Systems


@dataclass(frozen=True)
class System:
    """Runs that differ in their seeds only, in the order of the seeds."""

    name: str
    runs: list[Run]

    @property
    def best(self) -> Run:
        return max(self.runs, key=lambda run: run.score)

    def mean(self, name: str) -> float:
        """Mean over the runs of one of their scores; 0 where a run has none, such as the F1 of a type not met."""
        return mean(run.scores.get(name, 0.0) for run in self.runs)

    @property
    def score(self) -> float:
        return self.mean(self.runs[0].task.score)

    def deviation(self, name: str) -> float | None:
        """Standard deviation over the runs (n - 1 degrees of freedom); None of a single one."""
        return stdev(run.scores.get(name, 0.0) for run in self.runs) if len(self.runs) > 1 else None


def group_runs(runs: Sequence[Run]) -> list[System]:
    """The systems that the runs are of, best first.

    Raises:
        ValueError: runs do different things, or on other validation sentences; two have both system and seed in common.
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
    grouped = [System(name, [of_seed[seed] for seed in sorted(of_seed)]) for name, of_seed in systems.items()]
    return sorted(grouped, key=lambda system: -system.score)


def _check_comparable(first: Run, run: Run) -> None:
    if run.task is not first.task:
        raise ValueError(f"{first.folder} is a run of {first.task.title}, {run.folder} of {run.task.title}")
    if len(run.texts) != len(first.texts):
        raise ValueError(
            f"{run.folder / PREDICTIONS} has {len(run.texts)} lines, that of {first.folder} {len(first.texts)}: "
            "compare runs on the same validation sentences"
        )
    for number, (ours, theirs) in enumerate(zip(_questions(run), _questions(first)), 1):
        if ours != theirs:
            raise ValueError(
                f"{run.folder / PREDICTIONS}:{number}: {ours} differs from {theirs} in {first.folder}: "
                "compare runs on the same validation sentences"
            )


def _questions(run: Run) -> Iterator[str]:
    """Text and gold answer of each line."""
    for text, gold in zip(run.texts, run.gold, strict=True):
        yield repr(render(text, gold) if run.task is NER else f"{gold}: {text}")


# Paired bootstrap


class Bootstrap(NamedTuple):
    """Difference of two scores with its 95 % interval, and the share of resamples in which its sign turns."""

    difference: float
    low: float
    high: float
    p: float


def counts_of(system: System, labels: Sequence[str]) -> np.ndarray:
    """What F1 is computed from, a sentence at a time, added up over the runs of a system.

    Args:
        labels: all classes; of no account for entities, which are counted together (micro average).

    Returns:
        (sentences, labels, 3), or (sentences, 1, 3) for entities: right ones, predicted ones, gold ones.
    """
    return sum(_entity_counts(run) if run.task is NER else _class_counts(run, labels) for run in system.runs)


def _entity_counts(run: Run) -> np.ndarray:
    pairs = zip(run.gold, run.predicted, strict=True)
    counts = [(len({*gold} & {*predicted}), len(predicted), len(gold)) for gold, predicted in pairs]
    return np.array(counts)[:, None]


def _class_counts(run: Run, labels: Sequence[str]) -> np.ndarray:
    gold, predicted = (np.array(column)[:, None] == np.array(labels) for column in (run.gold, run.predicted))
    return np.stack([gold & predicted, predicted, gold], axis=-1).astype(int)


def f1_of(counts: np.ndarray) -> np.ndarray:
    """Mean F1 over the labels that occur at all, 0 if none does, of counts (..., labels, 3)."""
    right, predicted, gold = np.moveaxis(counts, -1, 0)
    occurs = predicted + gold > 0
    f1 = 2 * right / np.maximum(predicted + gold, 1)
    return f1.sum(-1) / np.maximum(occurs.sum(-1), 1)


def bootstrap(first: np.ndarray, second: np.ndarray, resamples: int = RESAMPLES, seed: int = 0) -> Bootstrap:
    """Paired bootstrap over sentences of F1 of `first` minus F1 of `second`, see `counts_of`.

    Sentences are drawn with replacement, the same ones for both (Koehn 2004, Berg-Kirkpatrick et al. 2012). A
    difference of 0 counts as turned.
    """
    rng = np.random.default_rng(seed)
    both = np.stack([first, second], axis=1)
    sentences = len(both)
    totals = np.stack([both[rng.integers(sentences, size=sentences)].sum(0) for _ in range(resamples)])
    differences = np.subtract(*f1_of(totals).T)
    difference = float(np.subtract(*f1_of(both.sum(0))))
    low, high = np.percentile(differences, [2.5, 97.5])
    return Bootstrap(difference, float(low), float(high), float((differences * difference <= 0).mean()))


# Errors


def match_entities(gold: Sequence[Span], predicted: Sequence[Span]) -> Iterator[tuple[str, Span | None, Span | None]]:
    """Pairs of gold and predicted entities of a sentence, each in one pair, as `right` or one of `ERROR_CLASSES`.

    An entity is paired with one of the same span, if there is one; else with one of its type, then of any, that it
    shares most characters with and that is free. What is left over is `missed`, or `invented`.
    """
    ranks = ("right", "type", "boundary", "both")
    pairs = []
    for ours in gold:
        for theirs in predicted:
            shared = min(ours.end, theirs.end) - max(ours.start, theirs.start)
            if shared > 0:
                same_span, same_type = ours[:2] == theirs[:2], ours.label == theirs.label
                rank = (0 if same_type else 1) if same_span else (2 if same_type else 3)
                pairs.append((rank, -shared, ours, theirs))
    free, free_predicted = set(gold), set(predicted)
    for rank, _, ours, theirs in sorted(pairs):
        if ours in free and theirs in free_predicted:
            free.remove(ours)
            free_predicted.remove(theirs)
            yield ranks[rank], ours, theirs
    yield from (("missed", span, None) for span in sorted(free))
    yield from (("invented", None, span) for span in sorted(free_predicted))


def error_counts(run: Run) -> Counter:
    """How many entities are right, and how many errors there are of each class; of classes, `gold -> predicted`."""
    pairs = zip(run.gold, run.predicted, strict=True)
    if run.task is NER:
        return Counter(name for gold, predicted in pairs for name, _, _ in match_entities(gold, predicted))
    return Counter("right" if gold == predicted else f"{gold} → {predicted}" for gold, predicted in pairs)


def differing_sentences(first: Run, second: Run) -> list[int]:
    """The sentences that exactly one of two runs has wholly right."""
    rows = zip(first.gold, first.predicted, second.predicted, strict=True)
    return [i for i, (gold, ours, theirs) in enumerate(rows) if (gold == ours) != (gold == theirs)]


# Tables


class Speed(NamedTuple):
    """Of the pipeline on the CPU: median of one sentence at a time, and sentences in batches."""

    milliseconds: float
    sentences_per_second: float


def labels_of_runs(systems: Sequence[System]) -> list[str]:
    """Entity types, or classes, that any of the runs met."""
    names = {name for system in systems for run in system.runs for name in run.scores}
    return sorted(name.removesuffix("_number") for name in names if name.endswith("_number"))


def tables_of(systems: Sequence[System], speeds: dict[str, Speed]) -> dict[str, Rows]:
    """All tables of a comparison by name; `bootstrap` and `differences` are empty where there is but one system."""
    labels = labels_of_runs(systems)
    pairs = list(combinations(systems, 2))
    counts = {system.name: counts_of(system, labels) for system in systems} if pairs else {}
    return {
        "systems": [system_row(system, speeds[system.name]) for system in systems],
        "bootstrap": [
            {"systems": f"{a.name} − {b.name}"} | bootstrap_row(bootstrap(counts[a.name], counts[b.name]), a)
            for a, b in pairs
        ],
        "labels": [label_row(label, systems) for label in labels],
        "errors": error_rows(systems),
        "runs": [run_row(system, run) for system in systems for run in system.runs],
        "differences": [row for a, b in pairs for row in difference_rows(a, b)],
    }


def system_row(system: System, speed: Speed) -> dict[str, Any]:
    task, runs, best = system.runs[0].task, system.runs, system.best
    accuracy = {} if task is NER else {"accuracy": system.mean("accuracy")}
    return {
        "system": system.name,
        "runs": len(runs),
        f"mean {task.score_name}": system.score,
        "standard deviation": system.deviation(task.score),
        f"best {task.score_name}": best.score,
        **accuracy,
        f"mean {task.score_name} of all epochs": mean(run.summary[f"mean_{task.score}"] for run in runs),
        "s an epoch": mean(run.results["seconds_per_epoch"] for run in runs),
        "training, s": mean(run.seconds for run in runs),
        "parameters": best.results["parameters"],
        "file, MB": best.bytes / 1e6,
        "one sentence, ms": speed.milliseconds,
        "sentences a second": speed.sentences_per_second,
    }


def run_row(system: System, run: Run) -> dict[str, Any]:
    score, name = run.task.score, run.task.score_name
    return {
        "system": system.name,
        "seed": run.seed,
        name: run.score,
        f"best {name} of the epochs": run.summary[f"best_{score}"],
        "in epoch": run.summary["best_epoch"],
        f"mean {name} of the epochs": run.summary[f"mean_{score}"],
        "s an epoch": run.results["seconds_per_epoch"],
        "training, s": run.seconds,
        "folder": str(run.folder),
    }


def bootstrap_row(result: Bootstrap, system: System) -> dict[str, Any]:
    name = f"difference of {system.runs[0].task.score_name}"
    return {name: result.difference, "95 % from": result.low, "to": result.high, "p": result.p}


def label_row(label: str, systems: Sequence[System]) -> dict[str, Any]:
    first = systems[0].runs[0]
    number = next(run.scores[f"{label}_number"] for s in systems for run in s.runs if f"{label}_number" in run.scores)
    return {first.task.label: label, "gold": int(number)} | {s.name: s.mean(f"{label}_f1") for s in systems}


def error_rows(systems: Sequence[System]) -> Rows:
    """A line an error class, of classes a line for each of the ten most frequent confusions; means over the runs."""
    counts = {system.name: [error_counts(run) for run in system.runs] for system in systems}
    meanings = {"right": "type and both ends"} | ERROR_CLASSES
    if systems[0].runs[0].task is not NER:
        total = sum((count for of_system in counts.values() for count in of_system), Counter())
        confusions = [name for name, _ in total.most_common(11) if name != "right"][:10]
        meanings = {"right": "the gold class"} | dict.fromkeys(confusions, "gold → predicted")
    return [
        {"error": name, "what": meaning}
        | {system: mean(count[name] for count in of_system) for system, of_system in counts.items()}
        for name, meaning in meanings.items()
    ]


def difference_rows(first: System, second: System) -> Iterator[dict[str, Any]]:
    """The sentences that the best run of just one of two systems has right, what is right, and what the other says."""
    runs = {first.name: first.best, second.name: second.best}
    texts, gold = first.best.texts, first.best.gold
    for i in differing_sentences(*runs.values()):
        right, wrong = sorted(runs, key=lambda name: runs[name].predicted[i] != gold[i])
        answers = {"gold": gold[i], "predicted": runs[wrong].predicted[i]}
        if first.best.task is NER:
            answers = {name: render(texts[i], spans) for name, spans in answers.items()}
        yield {"line": i + 1, "right": right, "wrong": wrong, "text": texts[i]} | answers
