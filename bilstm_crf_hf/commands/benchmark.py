"""Measure the speed of everything, side by side: python recipes/benchmark.py [config.yaml] [--peers] [--argument value]

Each table compares candidates that ran in turn, several rounds of each, and gives medians; run it on an idle machine.
Writes benchmark.md, benchmark.json and scaling.png to --output_dir.
"""

import copy
import gc
import json
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from itertools import cycle, islice
from pathlib import Path
from statistics import median

import numpy as np
import psutil
import torch
from datasets import Dataset
from torch import Tensor, nn
from torchcrf import CRF
from transformers import AutoTokenizer, DataCollatorForTokenClassification, TokenClassificationPipeline

from .. import BiLSTMCRFForTokenClassification, BiLSTMCRFTokenClassificationPipeline, LinearChainCRF
from ..data.encoding import EncodedCorpus
from ..data.ner import labels_of, load_ner_datasets
from ..data.tokenization import build_character_tokenizer
from ..evaluation.tasks import label_maps
from ..processing_bilstm_crf import BiLSTMCRFProcessor
from ..training.arguments import TaggerTrainingArguments, parse_arguments
from ..training.optimization import RowAdamW, clip_gradients, use_sparse_gradients
from ..training.trainer import TaggerTrainer
from ..utils.environment import hardware, versions
from . import benchmark_peers as peers
from . import sample_files

TUTORIAL = {
    "embedding_size": 768,
    "hidden_size": 256,
    "embedding_norm": 1.0,
    "ngrams": [],
    "jamo_embedding_size": 0,
    "locked_dropout": 0.0,
    "word_dropout": 0.0,
}
"""Configuration of the tutorial's model, as in recipes/configs/klue_ner_blog.yaml."""


@dataclass
class BenchmarkArguments:
    """What is measured, and on which sentences."""

    train_file: str | None = field(
        default=None, metadata={"help": "Sentences of the training steps. Default: the sample in a clone."}
    )
    validation_file: str | None = field(default=None, metadata={"help": "Sentences to tag. Default: likewise."})
    tokenizer_name: str | None = field(
        default=None, metadata={"help": "WordPiece tokenizer of the tutorial's model and BERT's. Default: characters."}
    )
    peers: bool = field(default=False, metadata={"help": "Also time BERT-base, Flair, spaCy, CRFsuite (if installed)."})
    sections: list[str] = field(
        default_factory=lambda: ["crf", "training", "inference", "scaling", "stream"],
        metadata={"help": "Which tables to make."},
    )
    rounds: int = field(default=7, metadata={"help": "Times that each candidate runs."})
    steps: int = field(default=20, metadata={"help": "Training steps of a round."})
    stream_sentences: int = field(default=50_000, metadata={"help": "Sentences of the measurement of memory."})
    output_dir: str = "outputs/benchmark"


def medians(candidates: dict[str, Callable[[], object]], rounds: int) -> dict[str, float]:
    """Median seconds of each candidate. They take turns; a short one runs several times in its turn, for 50 ms."""
    repeats = {name: max(1, round(0.05 / seconds_of(run))) for name, run in candidates.items()}
    seconds: dict[str, list[float]] = {name: [] for name in candidates}
    for _ in range(rounds):
        for name, run in candidates.items():
            gc.collect()
            seconds[name].append(seconds_of(run, repeats[name]))
    return {name: median(values) for name, values in seconds.items()}


def seconds_of(run: Callable[[], object], repeats: int = 1) -> float:
    began = time.perf_counter()
    for _ in range(repeats):
        run()
    return (time.perf_counter() - began) / repeats


# The CRF alone


def crf_candidates(batch: int, timesteps: int, num_tags: int) -> dict[str, Callable[[], object]]:
    ours, theirs = LinearChainCRF(num_tags), CRF(num_tags)
    emissions = torch.randn(timesteps, batch, num_tags, requires_grad=True)
    tags = torch.randint(num_tags, (timesteps, batch))
    mask = torch.ones(timesteps, batch, dtype=torch.bool)
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
    for num_tags in (13, 60):
        seconds = medians(crf_candidates(32, 128, num_tags), arguments.rounds)
        for name, reference in (
            ("loss + backward", "torchcrf loss + backward"),
            ("viterbi", "torchcrf decode"),
            ("marginals", "loss + backward"),
            ("posterior", "loss + backward"),
            ("5 best", "viterbi"),
        ):
            yield {
                "what": f"{name}, B 32, T 128, K {num_tags}",
                "ms": 1e3 * seconds[name],
                "against": reference,
                "its ms": 1e3 * seconds[reference],
                "times faster": seconds[reference] / seconds[name],
            }


# Training


class SoftmaxTagger(BiLSTMCRFForTokenClassification):
    """The same model with a softmax in place of the CRF."""

    def forward(self, input_ids: Tensor, attention_mask: Tensor, labels: Tensor) -> dict[str, Tensor]:
        sequences = self.bilstm.sequences(input_ids, attention_mask)
        emissions = self.classifier(self.bilstm.encode(input_ids, sequences))
        tags = sequences.pack(labels).masked_fill(~sequences.inside, -100)
        return {"loss": nn.functional.cross_entropy(emissions.flatten(0, 1), tags.flatten())}


def our_steps(model: nn.Module, batches: list[dict[str, Tensor]]) -> Callable[[], None]:
    """Training steps as `TaggerTrainer` takes them, without what `Trainer` does around them."""
    use_sparse_gradients(model)
    optimizer = RowAdamW(model.parameters(), lr=1e-3, fused=True)
    model.train()

    def steps() -> None:
        for batch in batches:
            model(**batch)["loss"].backward()
            clip_gradients(model.parameters(), 5.0)
            optimizer.step()
            optimizer.zero_grad()

    return steps


def lstm_steps(model: BiLSTMCRFForTokenClassification, batches: list[dict[str, Tensor]]) -> Callable[[], None]:
    """The LSTM kernels of the same steps alone, forward and backward."""
    shapes = [model.bilstm.sequences(batch["input_ids"], batch["attention_mask"]).inside.shape for batch in batches]
    layers = [lstm for layer in model.bilstm.layers for lstm in layer.children()]

    def steps() -> None:
        for timesteps, size in shapes:
            for lstm in layers:
                x = torch.randn(timesteps, size, lstm.input_size, requires_grad=True)
                lstm(x)[0].sum().backward()

    return steps


def trainer_steps(model, corpus: EncodedCorpus, tokenizer, sentences: int, folder: str) -> Callable[[], None]:
    """An epoch of `TaggerTrainer` over the first `sentences`, without evaluation."""
    options = {"report_to": "none", "disable_tqdm": True, "load_best_model_at_end": False}
    arguments = TaggerTrainingArguments(folder, num_train_epochs=1, eval_strategy="no", save_strategy="no", **options)
    rows = corpus.inputs.shuffle(seed=0).select(range(sentences))
    trainer = TaggerTrainer(
        model,
        arguments,
        columns={},
        data_collator=DataCollatorForTokenClassification(tokenizer),
        train_dataset=rows,
        processing_class=tokenizer,
    )
    return trainer.train


def batches_of(corpus: EncodedCorpus, tokenizer, count: int, pad_to: int | None = None) -> list[dict[str, Tensor]]:
    """`count` batches of 32 sentences of like length, evenly over all lengths; or at random, padded to `pad_to`."""
    order = torch.randperm(len(corpus.inputs)).tolist() if pad_to else range(len(corpus.inputs))  # sorted by length
    starts = [int((n + 0.5) / count * (len(order) - 32)) for n in range(count)]
    collator = DataCollatorForTokenClassification(
        tokenizer, padding="max_length" if pad_to else True, max_length=pad_to
    )
    return [dict(collator([corpus.inputs[i] for i in order[start : start + 32]])) for start in starts]


def training_rows(arguments: BenchmarkArguments, data: Dataset, labels: list[str]) -> Iterator[dict]:
    names = label_maps(labels)
    characters = build_character_tokenizer(data["text"], 2)
    pieces = peers_tokenizer(arguments) or characters
    corpora = {id(t): EncodedCorpus(data, BiLSTMCRFProcessor(t), labels, 128) for t in (characters, pieces)}

    def batches(tokenizer, **options) -> list[dict[str, Tensor]]:
        return batches_of(corpora[id(tokenizer)], tokenizer, arguments.steps, **options)

    def new(tokenizer, model_class=BiLSTMCRFForTokenClassification, **options):
        return model_class.from_tokenizer(tokenizer, **names, **options)

    sentences = min(len(data), 4 * 32 * arguments.steps)  # of what Trainer does, some comes once a run
    default, folder = new(characters), arguments.output_dir
    seconds = medians(
        {
            "tutorial's loop": peers.tutorial_steps(
                peers.TutorialTagger(len(pieces), len(labels)), batches(pieces, pad_to=128)
            ),
            "tutorial's model": our_steps(new(pieces, **TUTORIAL), batches(pieces)),
            "tutorial's model, Trainer": trainer_steps(
                new(pieces, **TUTORIAL), corpora[id(pieces)], pieces, sentences, folder
            ),
            "default model": our_steps(default, batches(characters)),
            "default model, Trainer": trainer_steps(
                new(characters), corpora[id(characters)], characters, sentences, folder
            ),
            "default model, softmax": our_steps(new(characters, SoftmaxTagger), batches(characters)),
            "default model, LSTM kernels": lstm_steps(default, batches(characters)),
        },
        arguments.rounds,
    )
    step = {
        name: value / (sentences if name.endswith("Trainer") else 32 * arguments.steps) * 32
        for name, value in seconds.items()
    }
    for name, value in step.items():
        yield {
            "what": name,
            "sentences a second": 32 / value,
            "ms a step of 32": 1e3 * value,
            "times the tutorial's loop": step["tutorial's loop"] / value,
            "of the default model's step": value / step["default model"] if "default" in name else None,
        }


def peers_tokenizer(arguments: BenchmarkArguments):
    return arguments.tokenizer_name and AutoTokenizer.from_pretrained(arguments.tokenizer_name)


# Inference


def onnx_taggers(model, tokenizer, folder: str) -> dict[str, Callable[[list[str]], None]]:
    """Batches of similar length through onnxruntime, with plain and with quantised weights."""
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
    names = label_maps(labels)
    texts = list(data["validation"]["text"])
    tokenizer = build_character_tokenizer(data["train"]["text"], 2)
    model = BiLSTMCRFForTokenClassification.from_tokenizer(tokenizer, **names).eval()
    tagger = BiLSTMCRFTokenClassificationPipeline(model=model, tokenizer=tokenizer)
    halved = copy.deepcopy(model).to(torch.bfloat16)  # as of pipeline(..., dtype="bfloat16")
    taggers: dict[str, tuple[Callable[[list], object], list]] = {
        "pipeline": (tagger, texts),
        "pipeline, bfloat16": (BiLSTMCRFTokenClassificationPipeline(model=halved, tokenizer=tokenizer), texts),
    }
    with tempfile.TemporaryDirectory() as folder:
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
    """BERT-base in the stock pipeline, and the libraries that are installed, over characters."""
    pieces = peers_tokenizer(arguments) or tokenizer
    texts = list(data["validation"]["text"])
    bert = TokenClassificationPipeline(model=peers.bert_base(pieces, labels), tokenizer=pieces, batch_size=32)
    taggers = {"BERT-base": (bert, texts[:256])}
    characters, tags = characters_of(data["train"].select(range(min(2000, len(data["train"])))))
    sentences, _ = characters_of(data["validation"].select(range(min(1000, len(texts)))))
    for name, build in peers.LIBRARIES.items():
        taggers[name] = (build(characters, tags), sentences)
    return taggers


def characters_of(data: Dataset) -> tuple[list[list[str]], list[list[str]]]:
    """The characters of each sentence and their tags; Korean entities end within words, so words will not do."""
    names = labels_of(data)
    return [list(text) for text in data["text"]], [[names[i] for i in row] for row in data["tags"]]


# Scaling


AXES = {"length": (16, 64, 256, 1024, 4096, 8192), "labels": (5, 13, 25, 50, 100, 150), "batch": (1, 4, 16, 64, 256)}
USUAL = {"length": 128, "labels": 13, "batch": 1}


def scaling_rows(arguments: BenchmarkArguments) -> Iterator[dict]:
    """Seconds of the CRF and of a whole model as one of length, labels and batch grows, the others as in `USUAL`."""
    for axis, values in AXES.items():
        seconds = [medians(scaling_candidates(**(USUAL | {axis: value})), arguments.rounds) for value in values]
        for name in seconds[0]:
            curve = [row[name] for row in seconds]
            # Over the upper half: of short sequences the time is that of single operations.
            half = len(values) // 2
            exponent = np.polyfit(np.log(values[half:]), np.log(curve[half:]), 1)[0]
            yield {"what": f"{name} by {axis}", "exponent": exponent} | {
                f"ms at {value}": 1e3 * point for value, point in zip(values, curve, strict=True)
            }


def scaling_candidates(length: int, labels: int, batch: int) -> dict[str, Callable[[], object]]:
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
    """One picture an axis: milliseconds against its values, on logarithmic scales."""
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
    """Memory while a stream of sentences goes through the pipeline."""
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
    """Rows as a markdown table, with the columns of all of them."""
    columns = list(dict.fromkeys(name for row in rows for name in row))
    cells = [[_cell(row.get(name)) for name in columns] for row in rows]
    lines = [columns, ["---", *["---:"] * (len(columns) - 1)], *cells]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _cell(value: float | str | None) -> str:
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
    sections = {
        "crf": lambda: crf_rows(arguments),
        "training": lambda: training_rows(arguments, data["train"], labels),
        "inference": lambda: inference_rows(arguments, data, labels),
        "scaling": lambda: scaling_rows(arguments),
        "stream": lambda: stream_rows(arguments, data, labels),
    }
    report = {
        "machine": hardware(),
        "versions": versions(),
        "arguments": vars(arguments),
    }
    folder = Path(arguments.output_dir)
    folder.mkdir(parents=True, exist_ok=True)
    text = ""
    for name in arguments.sections:
        report[name] = list(sections[name]())
        text += f"## {name}\n\n{table(report[name])}\n\n"
        print(f"## {name}\n\n{table(report[name])}\n", flush=True)
    (folder / "benchmark.md").write_text(text, encoding="utf-8")
    (folder / "benchmark.json").write_text(json.dumps(report, indent=2, ensure_ascii=False), encoding="utf-8")
    if "scaling" in report:
        plot_scaling(report["scaling"], folder / "scaling.png")
