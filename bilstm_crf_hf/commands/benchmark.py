"""Measure the speed of everything, side by side: bilstm-crf benchmark [config.yaml] [--peers] [--argument value]

Each table compares candidates that run in turn, for several rounds, and reports medians. Run it on an idle machine.
The command writes benchmark.md, benchmark.json, scaling.png and profile.txt to --output_dir.
"""

import copy
import json
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cache, partial
from itertools import cycle, islice
from pathlib import Path

import numpy as np
import psutil
import torch
from datasets import Dataset
from torchcrf import CRF
from transformers import AutoTokenizer, PreTrainedTokenizerBase, TokenClassificationPipeline

from .. import BiLSTMCRFForTokenClassification, BiLSTMCRFTokenClassificationPipeline, LinearChainCRF
from ..data.ner import labels_of, load_ner_datasets
from ..data.tokenization import build_character_tokenizer
from ..evaluation.tasks import label_maps
from ..training.arguments import parse_arguments
from ..utils.environment import hardware, versions
from ..utils.timing import medians
from . import benchmark_peers as peers
from . import sample_files
from .benchmark_training import TrainingBenchmark


@dataclass
class BenchmarkArguments:
    """Arguments of the command: the tables to make, and the sentences to use."""

    train_file: str | None = field(
        default=None, metadata={"help": "Sentences to train on. Default: the sample in a clone."}
    )
    validation_file: str | None = field(
        default=None, metadata={"help": "Sentences to tag. Default: the sample in a clone."}
    )
    tokenizer_name: str | None = field(
        default=None,
        metadata={"help": "WordPiece tokenizer of the tutorial's model and of BERT. Default: characters."},
    )
    device: str = field(
        default="cpu",
        metadata={"help": "Device of the crf, training, epoch, profile and inference tables: cpu or cuda."},
    )
    peers: bool = field(default=False, metadata={"help": "Also time BERT-base, Flair, spaCy, CRFsuite (if installed)."})
    sections: list[str] = field(
        default_factory=lambda: ["crf", "training", "inference", "scaling", "stream"],
        metadata={"help": "Tables to make: crf, training, epoch, profile, inference, scaling, stream."},
    )
    crf_lengths: list[int] = field(
        default_factory=lambda: [128], metadata={"help": "Lengths of the sequences in the crf table."}
    )
    rounds: int = field(default=7, metadata={"help": "Number of times that each candidate runs."})
    steps: int = field(default=20, metadata={"help": "Training steps in a round."})
    epoch_sentences: int | None = field(
        default=None, metadata={"help": "Training sentences from which an epoch's time is estimated. Default: all."}
    )
    stream_sentences: int = field(
        default=50_000, metadata={"help": "Number of sentences in the measurement of memory."}
    )
    output_dir: str = "outputs/benchmark"


# The CRF alone


def crf_candidates(batch: int, timesteps: int, num_tags: int, device: str = "cpu") -> dict[str, Callable[[], object]]:
    """Return the operations of the CRF and of pytorch-crf on the same random batch."""
    ours, theirs = LinearChainCRF(num_tags).to(device), CRF(num_tags).to(device)
    emissions = torch.randn(timesteps, batch, num_tags, device=device, requires_grad=True)
    tags = torch.randint(num_tags, (timesteps, batch), device=device)
    mask = torch.ones(timesteps, batch, dtype=torch.bool, device=device)
    return {
        "torchcrf loss + backward": lambda: theirs(emissions, tags, mask).backward(),
        "loss + backward": lambda: ours(emissions, tags, mask).backward(),
        "torchcrf decode": lambda: theirs.decode(emissions, mask),
        "viterbi": lambda: ours.viterbi(emissions, mask),
        "marginals": lambda: ours.marginals(emissions, mask),
        "posterior": lambda: ours.posterior(emissions, mask),
        "5 best": lambda: ours.nbest(emissions, mask, k=5),
    }


def crf_rows(arguments: BenchmarkArguments) -> Iterator[dict]:
    """Yield the time of each operation of the CRF beside that of a reference."""
    for num_tags in (13, 60):
        for length in arguments.crf_lengths:
            seconds = medians(crf_candidates(32, length, num_tags, arguments.device), arguments.rounds)
            for name, reference in (
                ("loss + backward", "torchcrf loss + backward"),
                ("viterbi", "torchcrf decode"),
                ("marginals", "loss + backward"),
                ("posterior", "loss + backward"),
                ("5 best", "viterbi"),
            ):
                yield {
                    "what": f"{name}, B 32, T {length}, K {num_tags}",
                    "ms": 1e3 * seconds[name],
                    "against": reference,
                    "its ms": 1e3 * seconds[reference],
                    "times faster": seconds[reference] / seconds[name],
                }


def wordpiece_tokenizer(arguments: BenchmarkArguments) -> PreTrainedTokenizerBase | None:
    """Return the tokenizer of the tutorial's model and of BERT, if the arguments name one."""
    return arguments.tokenizer_name and AutoTokenizer.from_pretrained(arguments.tokenizer_name)


# Inference


def onnx_taggers(model, tokenizer, folder: str) -> dict[str, Callable[[list[str]], None]]:
    """Return taggers that run batches of similar length in onnxruntime, with plain and with quantised weights."""
    import onnxruntime
    from onnxruntime.quantization import QuantType, quantize_dynamic

    from ..inference.onnx import export_onnx

    plain, quantised = Path(folder, "model.onnx"), Path(folder, "model_int8.onnx")
    export_onnx(model, plain)
    quantize_dynamic(plain, quantised, weight_type=QuantType.QInt8)

    def tag(session: onnxruntime.InferenceSession, texts: list[str]) -> None:
        texts = sorted(texts, key=len)
        for start in range(0, len(texts), 32):
            batch = tokenizer(texts[start : start + 32], padding=True, return_token_type_ids=False, return_tensors="np")
            session.run(None, dict(batch))

    paths = {"ONNX": plain, "ONNX, int8": quantised}
    return {name: partial(tag, onnxruntime.InferenceSession(path)) for name, path in paths.items()}


def inference_rows(arguments: BenchmarkArguments, data: dict[str, Dataset], labels: list[str]) -> Iterator[dict]:
    """Yield the rate at which each tagger tags the validation sentences, and its time for a single sentence."""
    names = label_maps(labels)
    texts = list(data["validation"]["text"])
    tokenizer = build_character_tokenizer(data["train"]["text"], 2)
    model = BiLSTMCRFForTokenClassification.from_tokenizer(tokenizer, **names).eval()
    halved = copy.deepcopy(model).to(torch.bfloat16)  # the model of pipeline(..., dtype="bfloat16")
    options = {"tokenizer": tokenizer, "device": arguments.device}
    taggers: dict[str, tuple[Callable[[list], object], list]] = {
        "pipeline": (BiLSTMCRFTokenClassificationPipeline(model=model, **options), texts),
        "pipeline, bfloat16": (BiLSTMCRFTokenClassificationPipeline(model=halved, **options), texts),
    }
    with tempfile.TemporaryDirectory() as folder:
        if arguments.device == "cpu":
            taggers |= {name: (tag, texts) for name, tag in onnx_taggers(model, tokenizer, folder).items()}
        if arguments.peers:
            taggers |= peer_taggers(arguments, data, labels, tokenizer)
        seconds = medians(
            {name: lambda tag=tag, some=some: tag(some) for name, (tag, some) in taggers.items()}, arguments.rounds
        )
        one = medians(
            {
                name: lambda tag=tag, some=some: [tag([text]) for text in some[:: len(some) // 20][:20]]
                for name, (tag, some) in taggers.items()
            },
            arguments.rounds,
        )
    for name, (_, some) in taggers.items():
        yield {
            "what": name,
            "sentences a second": len(some) / seconds[name],
            "ms for one": 1e3 * one[name] / 20,
            "pipeline is faster by": seconds[name] / len(some) / (seconds["pipeline"] / len(texts)),
            "and for one by": one[name] / one["pipeline"],
        }


def peer_taggers(
    arguments: BenchmarkArguments, data: dict[str, Dataset], labels: list[str], tokenizer
) -> dict[str, tuple[Callable[[list], object], list]]:
    """Return BERT-base in the stock pipeline; on the CPU also the libraries that are installed, over characters."""
    pieces = wordpiece_tokenizer(arguments) or tokenizer
    texts = list(data["validation"]["text"])
    model = peers.bert_base(pieces, labels)
    if arguments.device != "cpu":
        bert = TokenClassificationPipeline(
            model=model.bfloat16(), tokenizer=pieces, batch_size=128, device=arguments.device
        )
        return {"BERT-base, bfloat16": (bert, texts[:1024])}
    taggers = {"BERT-base": (TokenClassificationPipeline(model=model, tokenizer=pieces, batch_size=32), texts[:256])}
    characters, tags = characters_of(data["train"].select(range(min(2000, len(data["train"])))))
    sentences, _ = characters_of(data["validation"].select(range(min(1000, len(texts)))))
    for name, build in peers.LIBRARIES.items():
        taggers[name] = (build(characters, tags), sentences)
    return taggers


def characters_of(data: Dataset) -> tuple[list[list[str]], list[list[str]]]:
    """Return the characters of each sentence and their tags (Korean entities end within words)."""
    names = labels_of(data)
    return [list(text) for text in data["text"]], [[names[i] for i in row] for row in data["tags"]]


# Scaling


AXES = {"length": (16, 64, 256, 1024, 4096, 8192), "labels": (5, 13, 25, 50, 100, 150), "batch": (1, 4, 16, 64, 256)}
USUAL = {"length": 128, "labels": 13, "batch": 1}


def scaling_rows(arguments: BenchmarkArguments) -> Iterator[dict]:
    """Yield the time of the CRF and of a whole model as one of length, labels and batch grows.

    The other two are those of `USUAL`.
    """
    for axis, values in AXES.items():
        seconds = [medians(scaling_candidates(**(USUAL | {axis: value})), arguments.rounds) for value in values]
        for name in seconds[0]:
            curve = [row[name] for row in seconds]
            # Fit to the upper half: for short sequences, the overhead of single operations dominates.
            half = len(values) // 2
            exponent = np.polyfit(np.log(values[half:]), np.log(curve[half:]), 1)[0]
            yield {"what": f"{name} by {axis}", "exponent": exponent} | {
                f"ms at {value}": 1e3 * point for value, point in zip(values, curve, strict=True)
            }


def scaling_candidates(length: int, labels: int, batch: int) -> dict[str, Callable[[], object]]:
    """Return the operations that `scaling_rows` times, at one point."""
    crf = {
        name: run
        for name, run in crf_candidates(batch, length, labels).items()
        if name in ("loss + backward", "viterbi")
    }
    tokenizer = build_character_tokenizer(["가나다라마바사"])
    model = BiLSTMCRFForTokenClassification.from_tokenizer(tokenizer, num_labels=labels).eval()
    input_ids = torch.randint(5, len(tokenizer), (batch, length))
    with torch.inference_mode():
        return {f"CRF {name}": run for name, run in crf.items()} | {
            "model, inference": torch.inference_mode()(lambda: model(input_ids=input_ids))
        }


def plot_scaling(rows: list[dict], path: Path) -> None:
    """Plot milliseconds against the values of each axis, on logarithmic scales."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(12, 4), layout="constrained")
    for axes, axis in zip(figure.subplots(1, len(AXES)), AXES, strict=True):
        for row in rows:
            if row["what"].endswith(f"by {axis}"):
                points = [(value, row[f"ms at {value}"]) for value in AXES[axis]]
                label = f"{row['what'].removesuffix(f' by {axis}')} ({row['exponent']:.2f})"
                axes.loglog(*zip(*points, strict=True), marker="o", label=label)
        others = ", ".join(f"{name} {value}" for name, value in USUAL.items() if name != axis)
        axes.set(xlabel=axis, ylabel="ms", title=others)
        axes.grid(alpha=0.3)
        axes.set_ylim(top=10 * axes.get_ylim()[1])  # room for the legend
        axes.legend(title="(exponent of the upper half)", loc="upper left", fontsize="small")
    figure.savefig(path, dpi=120)


# Memory


def stream_rows(arguments: BenchmarkArguments, data: dict[str, Dataset], labels: list[str]) -> Iterator[dict]:
    """Yield the memory of the process while a stream of sentences goes through the pipeline."""
    tokenizer = build_character_tokenizer(data["train"]["text"], 2)
    names = label_maps(labels)
    model = BiLSTMCRFForTokenClassification.from_tokenizer(tokenizer, **names)
    tagger = BiLSTMCRFTokenClassificationPipeline(model=model, tokenizer=tokenizer)
    stream = islice(cycle(data["validation"]["text"]), arguments.stream_sentences)
    began = time.perf_counter()
    for i, _ in enumerate(tagger(text for text in stream), 1):
        if i % (arguments.stream_sentences // 5) == 0:
            resident = psutil.Process().memory_info().rss / 2**20
            yield {"what": f"after {i:,} sentences", "resident MB": resident, "seconds": time.perf_counter() - began}


# The report


def table(rows: list[dict]) -> str:
    """Format rows as a markdown table, with the columns of all of them."""
    columns = list(dict.fromkeys(name for row in rows for name in row))
    cells = [[_cell(row.get(name)) for name in columns] for row in rows]
    lines = [columns, ["---", *["---:"] * (len(columns) - 1)], *cells]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _cell(value: float | str | None) -> str:
    """Format a number with three significant digits; None is empty."""
    if value is None:
        return ""
    return value if isinstance(value, str) else f"{value:.3g}" if value < 100 else f"{value:.0f}"


def main(argv: list[str], recipes: Path | None = None) -> None:
    """Run the command."""
    (arguments,) = parse_arguments((BenchmarkArguments,), argv, __doc__)
    torch.manual_seed(0)
    files = {"train": arguments.train_file, "validation": arguments.validation_file}
    files = sample_files("ner", "txt", recipes) | {split: path for split, path in files.items() if path}
    data = load_ner_datasets(data_files=files)
    labels = labels_of(data["train"])
    folder = Path(arguments.output_dir)
    folder.mkdir(parents=True, exist_ok=True)

    @cache
    def training() -> TrainingBenchmark:
        return TrainingBenchmark(data["train"], labels, wordpiece_tokenizer(arguments), arguments.device, folder)

    sections = {
        "crf": lambda: crf_rows(arguments),
        "training": lambda: training().step_rows(arguments.steps, arguments.rounds),
        "epoch": lambda: training().epoch_rows(arguments.epoch_sentences),
        "profile": lambda: training().profile_rows(),
        "inference": lambda: inference_rows(arguments, data, labels),
        "scaling": lambda: scaling_rows(arguments),
        "stream": lambda: stream_rows(arguments, data, labels),
    }
    report = {
        "machine": hardware(),
        "device": hardware(arguments.device),
        "versions": versions(),
        "arguments": vars(arguments),
    }
    print(f"{report['machine']}; device: {report['device']}", flush=True)
    text = ""
    for name in arguments.sections:
        report[name] = list(sections[name]())
        text += f"## {name}\n\n{table(report[name])}\n\n"
        print(f"## {name}\n\n{table(report[name])}\n", flush=True)
    (folder / "benchmark.md").write_text(text, encoding="utf-8")
    (folder / "benchmark.json").write_text(json.dumps(report, indent=2, ensure_ascii=False), encoding="utf-8")
    if "scaling" in report:
        plot_scaling(report["scaling"], folder / "scaling.png")
