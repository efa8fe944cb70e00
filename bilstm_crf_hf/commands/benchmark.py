"""Measure the speed of everything, side by side: bilstm-crf benchmark [config.yaml] [--peers] [--argument value]

Each table compares candidates that run in turn, for several rounds, and reports medians. Run it on an idle machine.
The command writes benchmark.md, benchmark.json and, for the section `profile`, profile.txt to --output_dir.
"""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import cycle, islice
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import torch
from torchcrf import CRF
from transformers.hf_argparser import HfArg

from .. import BiLSTMCRFForTokenClassification, BiLSTMCRFTokenClassificationPipeline, LinearChainCRF
from ..data.ner import load_ner_datasets
from ..data.tokenization import build_character_tokenizer
from ..evaluation.markdown import Cell, formatted, markdown_table, values_of
from ..training.arguments import parse_arguments
from ..utils.environment import hardware, versions
from ..utils.files import write_json
from ..utils.timing import medians
from . import sample_files
from .benchmark_inference import inference_rows
from .benchmark_models import Models
from .benchmark_training import epoch_rows, profile_rows, step_rows
from .benchmark_words import word_rows

SECTIONS = ("crf", "training", "epoch", "profile", "inference", "scaling", "stream", "words")


@dataclass
class BenchmarkArguments:
    """Arguments of the command: the tables to make, and the sentences to use."""

    train_file: str | None = HfArg(default=None, help="Sentences to train on. Default: the sample in a clone.")
    validation_file: str | None = HfArg(default=None, help="Sentences to tag. Default: the sample in a clone.")
    test_file: str | None = HfArg(default=None, help="Sentences of words that the table words scores.")
    embeddings_file: str | None = HfArg(default=None, help="Vectors of words for the peers in the table words.")
    model_name_or_path: str | None = HfArg(default=None, help="A saved tagger for the table words.")
    peer_minutes: float = HfArg(default=10.0, help="CPU minutes after which spaCy's training for the table words ends.")
    tokenizer_name: str | None = HfArg(default=None, help="WordPiece tokenizer of the peers. Default: characters.")
    device: str = HfArg(default="cpu", help="cpu or cuda. Scaling and stream are measured on the CPU.")
    peers: bool = HfArg(default=False, help="Also measure encoders, spaCy and CRFsuite if they are installed.")
    sections: list[str] = HfArg(
        default_factory=lambda: ["crf", "training", "inference", "scaling", "stream"],
        help=f"Tables to make: {', '.join(SECTIONS)}.",
    )
    crf_lengths: list[int] = HfArg(default_factory=lambda: [128], help="Lengths of the sequences in the crf table.")
    rounds: int = HfArg(default=7, help="Number of times that each candidate runs.")
    steps: int = HfArg(default=20, help="Training steps in a round.")
    epoch_sentences: int | None = HfArg(default=None, help="Sentences to estimate an epoch from. Default: all.")
    stream_sentences: int = HfArg(default=50_000, help="Number of sentences in the measurement of memory.")
    output_dir: str = "outputs/benchmark"

    def __post_init__(self) -> None:
        if unknown := sorted(set(self.sections) - set(SECTIONS)):
            raise ValueError(f"sections: there is no table {', '.join(unknown)}, only {', '.join(SECTIONS)}")
        if "words" in self.sections and not (self.train_file and self.validation_file and self.test_file):
            raise ValueError(
                "sections: the table words needs train_file, validation_file and test_file: name all three"
            )


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
    }


def crf_rows(lengths: list[int], device: str, rounds: int) -> Iterator[dict]:
    """Yield the time of each operation of the CRF beside that of a reference."""
    for num_tags in (13, 60):
        for length in lengths:
            seconds = medians(crf_candidates(32, length, num_tags, device), rounds)
            for name, reference in (
                ("loss + backward", "torchcrf loss + backward"),
                ("viterbi", "torchcrf decode"),
                ("marginals", "loss + backward"),
            ):
                yield {
                    "what": f"{name}, B 32, T {length}, K {num_tags}",
                    "ms": 1e3 * seconds[name],
                    "against": reference,
                    "its ms": 1e3 * seconds[reference],
                    "times faster": seconds[reference] / seconds[name],
                }


def scaling_rows(rounds: int) -> Iterator[dict]:
    """Yield the time of the CRF (13 labels) and of a whole model for one sequence, as its length grows."""
    lengths = (16, 64, 256, 1024, 4096, 8192)
    seconds = [medians(scaling_candidates(length), rounds) for length in lengths]
    for name in seconds[0]:
        curve = [row[name] for row in seconds]
        # Fit to the upper half: for short sequences, the overhead of single operations dominates.
        exponent = np.polyfit(np.log(lengths[3:]), np.log(curve[3:]), 1)[0]
        milliseconds = {f"ms at {length}": 1e3 * point for length, point in zip(lengths, curve, strict=True)}
        yield {"what": name, "exponent": exponent} | milliseconds


def scaling_candidates(length: int) -> dict[str, Callable[[], object]]:
    """Return the operations that `scaling_rows` times."""
    crf = crf_candidates(1, length, 13)
    tokenizer = build_character_tokenizer(["가나다라마바사"])
    model = BiLSTMCRFForTokenClassification.from_tokenizer(tokenizer, num_labels=13).eval()
    run = torch.inference_mode()(partial(model, input_ids=torch.randint(5, len(tokenizer), (1, length))))
    return {f"CRF {name}": crf[name] for name in ("loss + backward", "viterbi")} | {"model, inference": run}


def stream_rows(models: Models, sentences: int) -> Iterator[dict]:
    """Yield the memory of the process while a stream of sentences goes through the pipeline."""
    tagger = BiLSTMCRFTokenClassificationPipeline(
        model=models.default().cpu(), tokenizer=models.tokenizer, device="cpu"
    )
    stream = islice(cycle(models.data["validation"]["text"]), sentences)
    began = time.perf_counter()
    for i, _ in enumerate(tagger(text for text in stream), 1):
        if i % (sentences // 5) == 0:
            resident = psutil.Process().memory_info().rss / 2**20
            yield {"what": f"after {i:,} sentences", "resident MB": resident, "seconds": time.perf_counter() - began}


def rounded(value: Cell | float | str | None) -> Cell | str | None:
    """Return a number with three significant digits; text and cells stay as they are."""
    return (
        value if value is None or isinstance(value, str | Cell) else formatted(value, ".3g" if value < 100 else ".0f")
    )


def main(argv: list[str], recipes: Path | None = None) -> None:
    """Run the command."""
    (arguments,) = parse_arguments((BenchmarkArguments,), argv, __doc__)
    torch.manual_seed(0)
    named = {"train": arguments.train_file, "validation": arguments.validation_file}
    files = {split: path for split, path in named.items() if path} or sample_files("ner", "txt", recipes)
    if len(files) < 2:
        raise ValueError("give train_file and validation_file, or in a clone neither of them for the sample")
    if arguments.test_file:
        files["test"] = arguments.test_file
    folder, device, rounds = Path(arguments.output_dir), arguments.device, arguments.rounds
    folder.mkdir(parents=True, exist_ok=True)
    models = Models(load_ner_datasets(data_files=files), arguments.tokenizer_name, device, folder)
    sections = {
        "crf": lambda: crf_rows(arguments.crf_lengths, device, rounds),
        "training": lambda: step_rows(models, arguments.steps, rounds),
        "epoch": lambda: epoch_rows(models, arguments.epoch_sentences),
        "profile": lambda: profile_rows(models),
        "inference": lambda: inference_rows(models, rounds, arguments.peers),
        "scaling": lambda: scaling_rows(rounds),
        "stream": lambda: stream_rows(models, arguments.stream_sentences),
        "words": lambda: word_rows(
            models.data,
            arguments.embeddings_file,
            arguments.model_name_or_path,
            arguments.peers,
            arguments.peer_minutes,
            rounds,
            folder,
        ),
    }
    report: dict[str, Any] = {"machine": hardware(), "device": hardware(device), "versions": versions()}
    report["arguments"] = vars(arguments)
    print(f"{report['machine']}; device: {report['device']}", flush=True)
    text = ""
    for name in arguments.sections:
        rows = list(sections[name]())
        report[name] = values_of(rows)
        table = markdown_table([{heading: rounded(value) for heading, value in row.items()} for row in rows])
        section = f"## {name}\n\n{table}\n"
        print(section, flush=True)
        text += f"{section}\n"
    (folder / "benchmark.md").write_text(text, encoding="utf-8")
    write_json(folder / "benchmark.json", report)
