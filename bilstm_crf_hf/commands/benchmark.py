"""Measure the speed of everything, side by side: bilstm-crf benchmark [config.yaml] [--peers] [--argument value]

Each table compares candidates that run in turn, for several rounds, and reports medians. Run it on an idle machine.
The command writes benchmark.md, benchmark.json and, for the section `profile`, profile.txt to --output_dir.
"""

import copy
import tempfile
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
from transformers import TokenClassificationPipeline
from transformers.hf_argparser import HfArg

from .. import BiLSTMCRFForTokenClassification, BiLSTMCRFTokenClassificationPipeline, LinearChainCRF
from ..data.ner import load_ner_datasets
from ..data.tokenization import build_character_tokenizer
from ..evaluation.markdown import Cell, formatted, markdown_table
from ..training.arguments import parse_arguments
from ..utils.environment import hardware, versions
from ..utils.files import write_json
from ..utils.timing import medians
from . import sample_files
from .benchmark_models import Models
from .benchmark_training import epoch_rows, profile_rows, step_rows

SECTIONS = ("crf", "training", "epoch", "profile", "inference", "scaling", "stream")


@dataclass
class BenchmarkArguments:
    """Arguments of the command: the tables to make, and the sentences to use."""

    train_file: str | None = HfArg(default=None, help="Sentences to train on. Default: the sample in a clone.")
    validation_file: str | None = HfArg(default=None, help="Sentences to tag. Default: the sample in a clone.")
    tokenizer_name: str | None = HfArg(default=None, help="WordPiece tokenizer of the peers. Default: characters.")
    device: str = HfArg(default="cpu", help="cpu or cuda. Scaling and stream are measured on the CPU.")
    peers: bool = HfArg(default=False, help="Also time BERT-base, and spaCy and CRFsuite if they are installed.")
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


def onnx_taggers(model, tokenizer, folder: str) -> dict[str, Callable[[list[str]], None]]:
    """Return taggers that run batches of similar length in onnxruntime, with plain and with quantised weights."""
    import onnxruntime
    from onnxruntime.quantization import QuantType, quantize_dynamic

    from ..inference.onnx import export_onnx

    plain, quantised = Path(folder, "model.onnx"), Path(folder, "model_int8.onnx")
    export_onnx(model, plain, tokenizer)
    quantize_dynamic(plain, quantised, weight_type=QuantType.QInt8)

    def tag(session: onnxruntime.InferenceSession, texts: list[str]) -> None:
        texts = sorted(texts, key=len)
        for start in range(0, len(texts), 32):
            batch = tokenizer(texts[start : start + 32], padding=True, return_token_type_ids=False, return_tensors="np")
            session.run(None, dict(batch))

    paths = {"ONNX": plain, "ONNX, int8": quantised}
    return {name: partial(tag, onnxruntime.InferenceSession(path)) for name, path in paths.items()}


def inference_rows(models: Models, rounds: int, peers: bool) -> Iterator[dict]:
    """Yield the rate at which each tagger tags the validation sentences, and its time for a single sentence."""
    texts, options = list(models.data["validation"]["text"]), {"tokenizer": models.tokenizer, "device": models.device}
    model = models.default().eval()
    halved = copy.deepcopy(model).to(torch.bfloat16)  # the model of pipeline(..., dtype="bfloat16")
    taggers: dict[str, tuple[Callable[[list], object], list]] = {
        "pipeline": (BiLSTMCRFTokenClassificationPipeline(model=model, **options), texts),
        "pipeline, bfloat16": (BiLSTMCRFTokenClassificationPipeline(model=halved, **options), texts),
    }
    with tempfile.TemporaryDirectory() as folder:
        if models.device == "cpu":
            taggers |= {name: (tag, texts) for name, tag in onnx_taggers(model, models.tokenizer, folder).items()}
        if peers:
            taggers |= peer_taggers(models, texts)
        many = medians({name: partial(tag, some) for name, (tag, some) in taggers.items()}, rounds)
        single = medians({name: partial(tag_singly, *pair) for name, pair in taggers.items()}, rounds)
    for name, (_, some) in taggers.items():
        yield {
            "what": name,
            "sentences a second": len(some) / many[name],
            "ms for one": 1e3 * single[name] / 20,
            "pipeline is faster by": many[name] / len(some) / (many["pipeline"] / len(texts)),
            "and for one by": single[name] / single["pipeline"],
        }


def tag_singly(tag: Callable[[list], object], texts: list) -> None:
    """Tag 20 of the texts, one at a time."""
    for text in texts[:: len(texts) // 20][:20]:
        tag([text])


def peer_taggers(models: Models, texts: list[str]) -> dict[str, tuple[Callable[[list], object], list]]:
    """Return BERT-base in the stock pipeline; on the CPU also the libraries that are installed."""
    model, options = models.bert(), {"tokenizer": models.piece_tokenizer, "device": models.device}
    if models.device != "cpu":
        bert = TokenClassificationPipeline(model=model.bfloat16(), batch_size=128, **options)
        return {"BERT-base, bfloat16": (bert, texts[:1024])}
    bert = TokenClassificationPipeline(model=model, batch_size=32, **options)
    taggers, sentences = models.library_taggers()
    return {"BERT-base": (bert, texts[:256])} | {name: (tag, sentences) for name, tag in taggers.items()}


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


def rounded(value: float | str) -> Cell | str:
    """Return a number with three significant digits; text stays as it is."""
    return value if isinstance(value, str) else formatted(value, ".3g" if value < 100 else ".0f")


def main(argv: list[str], recipes: Path | None = None) -> None:
    """Run the command."""
    (arguments,) = parse_arguments((BenchmarkArguments,), argv, __doc__)
    torch.manual_seed(0)
    named = {"train": arguments.train_file, "validation": arguments.validation_file}
    files = {split: path for split, path in named.items() if path} or sample_files("ner", "txt", recipes)
    if len(files) < 2:
        raise ValueError("give train_file and validation_file, or in a clone neither of them for the sample")
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
    }
    report: dict[str, Any] = {"machine": hardware(), "device": hardware(device), "versions": versions()}
    report["arguments"] = vars(arguments)
    print(f"{report['machine']}; device: {report['device']}", flush=True)
    text = ""
    for name in arguments.sections:
        report[name] = list(sections[name]())
        table = markdown_table([{heading: rounded(value) for heading, value in row.items()} for row in report[name]])
        section = f"## {name}\n\n{table}\n"
        print(section, flush=True)
        text += f"{section}\n"
    (folder / "benchmark.md").write_text(text, encoding="utf-8")
    write_json(folder / "benchmark.json", report)
