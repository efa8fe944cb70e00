"""Inference in `bilstm-crf benchmark`: taggers on one core and on all, for one sentence, and on a busy machine.

The default model, and the same with morphemes, are trained for `TRAINING_STEPS` first: decoding takes time for each
entity, and random weights find ten times as many as there are. The processes that measure load all taggers from files,
see `benchmark_processes.conditions_on`. Beside spinning processes, only the taggers of this package are measured, and
on half of the sentences beside many. Slow peers tag fewer sentences, of the same lengths.
"""

import gc
import tempfile
from collections.abc import Callable, Iterator
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from statistics import fmean, median
from typing import Any

from ..data.encoding import EncodedCorpus
from ..inference.predictors import load_pipeline
from ..processing_bilstm_crf import BiLSTMCRFProcessor
from ..utils.timing import seconds_of
from .benchmark_limit import Peak, flop_of_a_token, peaks
from .benchmark_models import Candidate, Models, Tagger
from .benchmark_processes import CORE, Condition, conditions_on, spinning, usable_cores, workers
from .benchmark_training import new_trainer

TRAINING_STEPS = 600
"""Steps in which the taggers of this package are trained: half a minute for each."""

SINGLE = 20
"""Number of sentences that are tagged one at a time."""

Loaded = dict[str, tuple[Tagger, list]]
"""Taggers in a process that measures, and their sentences."""

Rates = dict[str, dict[str, float]]
"""Sentences a second by conditions and taggers."""


def inference_rows(models: Models, rounds: int, peers: bool) -> Iterator[dict]:
    """Yield the rates at which each tagger tags the validation sentences, and its time for a single sentence.

    On the CPU, the rates are those under all conditions; see [`table_rows`].
    """
    on_cpu, cores, texts = models.device == "cpu", usable_cores(), list(models.data["validation"]["text"])
    conditions = conditions_on(cores) if on_cpu else {"sentences a second": Condition(cores, None, ())}
    with tempfile.TemporaryDirectory() as folder:
        candidates = own_taggers(models, texts, Path(folder))
        candidates |= models.peers(texts, Path(folder)) if peers else {}
        with workers(dict, conditions) as run:
            rates, single = measure(candidates, conditions, run, rounds)
            limits: dict[str, Peak] = run[CORE](core_peaks, rounds) if on_cpu else {}
    tokens = fmean(len(ids) for ids in models.tokenizer(texts, add_special_tokens=False)["input_ids"])
    yield from table_rows(candidates, rates, single, limits, flop_of_a_token(models.default()), tokens)


def table_rows(
    candidates: dict[str, Candidate],
    rates: Rates,
    single: dict[str, float],
    limits: dict[str, Peak],
    flop: int,
    tokens: float,
) -> Iterator[dict]:
    """Yield the rows of the table, those of the limits last.

    Args:
        candidates: the taggers by their names.
        rates: sentences a second by conditions and taggers.
        single: seconds for a sentence.
        limits: the peaks of a core by the type of the numbers; none off the CPU.
        flop: operations for a character.
        tokens: characters of a sentence, on average.
    """
    for name, candidate in candidates.items():
        row: dict[str, Any] = {"what": name, "sentences": len(candidate.texts)}
        row |= {key: timed.get(name) for key, timed in rates.items()} | {"ms for one": 1e3 * single[name]}
        if candidate.numbers in limits:
            core, idle, busy, *_ = (timed[name] for timed in rates.values())
            row["% of idle beside one"] = 100 * busy / idle
            row["% of the limit"] = 100 * core * flop * tokens / limits[candidate.numbers].flops
        elif limits:
            row |= {"% of idle beside one": None, "% of the limit": None}
        yield row
    for numbers, peak in limits.items():
        work = f"{flop / 1e6:.2f} MFLOP for each of {tokens:.1f} characters"
        what = f"limit in {numbers}: {peak.flops / 1e9:.0f} GFLOP/s by {peak.way}, {work}"
        yield dict.fromkeys(row) | {"what": what, CORE: peak.flops / (flop * tokens), "% of the limit": 100.0}


def own_taggers(models: Models, texts: list[str], folder: Path) -> dict[str, Candidate]:
    """Return the taggers of this package, after a short training."""
    plain, device = train_tagger(models, folder / "plain"), models.device
    tagger = partial(load_pipeline, plain, device=device)
    halved = partial(tagger, dtype="bfloat16")
    taggers = {"pipeline": Candidate(tagger, texts, "float32")}
    if device != "cpu":
        return taggers | {"pipeline, bfloat16": Candidate(halved, texts, "bfloat16")}
    if find_spec("kiwipiepy"):
        reader = train_tagger(models, folder / "morphemes", read_morphemes=True)
        taggers["pipeline, morphemes"] = Candidate(partial(load_pipeline, reader, device=device), texts, "float32")
    taggers["pipeline, bfloat16"] = Candidate(halved, texts, "bfloat16")
    for name, graph, numbers in zip(("ONNX", "ONNX, int8"), export_tagger(plain), ("float32", "int8")):
        taggers[name] = Candidate(partial(load_pipeline, graph, backend="onnx"), texts, numbers)
    return taggers


def train_tagger(models: Models, folder: Path, **config) -> Path:
    """Save the default model, after a short training, to a folder; return the folder."""
    model, data = models.default(**config), models.data["train"]
    data = data.select(range(min(len(data), 32 * TRAINING_STEPS)))
    corpus = EncodedCorpus(data, BiLSTMCRFProcessor(models.tokenizer, model.config), models.labels)
    new_trainer(models, model, corpus, None, max_steps=TRAINING_STEPS).train()
    model.save_pretrained(folder)
    models.tokenizer.save_pretrained(folder)
    return folder


def export_tagger(folder: Path) -> tuple[Path, Path]:
    """Write a saved tagger to an ONNX graph and to one in int8, in a folder beside it; return both."""
    from ..inference.onnx import export_onnx, quantise

    pipe, target = load_pipeline(folder, device="cpu"), folder / "onnx"
    target.mkdir()
    plain, quantised = target / "model.onnx", target / "model_int8.onnx"
    export_onnx(pipe.model, plain, pipe.tokenizer)
    quantise(plain, quantised)
    pipe.tokenizer.save_pretrained(target)
    return plain, quantised


def measure(
    candidates: dict[str, Candidate], conditions: dict[str, Condition], run: dict[str, Callable], rounds: int
) -> tuple[Rates, dict[str, float]]:
    """Return sentences a second by conditions and candidates, and the seconds for a sentence on all cores, if idle.

    Candidates take turns within a round; values are medians.
    """
    own = {name: candidate for name, candidate in candidates.items() if candidate.numbers}
    measured = {key: own if condition.spinning else candidates for key, condition in conditions.items()}
    for condition, some in measured.items():
        for name, candidate in some.items():
            run[condition](load_tagger, name, candidate)
    seconds: dict[str, dict[str, list[float]]] = {key: {name: [] for name in some} for key, some in measured.items()}
    single: dict[str, list[float]] = {name: [] for name in candidates}
    idle = [key for key, condition in conditions.items() if not condition.spinning]
    for number in range(rounds):
        print(f"round {number + 1} of {rounds}", flush=True)
        for key, some in measured.items():
            _, threads, busy = conditions[key]
            with spinning(busy):
                for name in some:
                    seconds[key][name].append(run[key](seconds_a_sentence, name, 2 if len(busy) > 1 else 1, threads))
        for name in candidates:
            single[name] += run[idle[-1]](seconds_for_one, name)
    rates = {key: {name: 1 / median(each) for name, each in timed.items()} for key, timed in seconds.items()}
    return rates, {name: median(each) for name, each in single.items()}


def load_tagger(loaded: Loaded, name: str, candidate: Candidate) -> None:
    """Load a tagger and let it tag some sentences, unless it is loaded; this runs in a process that measures."""
    if name not in loaded:
        loaded[name] = tag, texts = candidate.load(), candidate.texts
        tag(texts[:: 1 + len(texts) // 128])


def seconds_a_sentence(loaded: Loaded, name: str, step: int, threads: int | None) -> float:
    """Return the seconds that a tagger takes for each of its sentences, of which it tags every `step`-th."""
    tag, texts = loaded[name]
    options = {} if threads is None else {"num_workers": threads}
    gc.collect()
    return seconds_of(partial(tag, texts[::step], **options)) / len(texts[::step])


def seconds_for_one(loaded: Loaded, name: str) -> list[float]:
    """Return the seconds that a tagger takes for each of `SINGLE` sentences, one at a time."""
    tag, texts = loaded[name]
    gc.collect()
    return [seconds_of(partial(tag, [text])) for text in texts[:: max(1, len(texts) // SINGLE)][:SINGLE]]


def core_peaks(_: Loaded, rounds: int) -> dict[str, Peak]:
    """Return the peaks of a core; this runs in the process that is limited to one."""
    return peaks(rounds)
