"""Train a text classifier: bilstm-crf classify [config.yaml] [--argument value ...]

Sentiment, emotions, topics: one label a text. A new BiLSTM over characters by default; over any tokenizer with
--tokenizer_name; any encoder, on the same data and with the same scores, with --model_name_or_path. Without
arguments, a clone's recipes/sequence_classification.py trains on the sentences in recipes/data/sentiment.
"""

from pathlib import Path

from transformers import set_seed

from ..training.arguments import CardArguments
from ..training.classification import ClassifierTrainingArguments, DataArguments, build, fit
from ..training.loading import ModelArguments
from ..training.trainer import configure_logging, parse_arguments
from . import sample_config, sample_files


def main(argv: list[str], recipes: Path | None = None) -> None:
    """Run the command."""
    *settings, arguments = parse_arguments(
        (ModelArguments, DataArguments, CardArguments, ClassifierTrainingArguments),
        argv or sample_config("sentiment_sample.yaml", recipes),
    )
    configure_logging(arguments)
    set_seed(arguments.seed)
    task = build(*settings[:2], sample_files("sentiment", "tsv", recipes))
    fit(task, task.inputs["train"], settings, arguments)
