"""Train a tagger: bilstm-crf ner [config.yaml] [--argument value ...]

A new BiLSTM-CRF over characters by default; over any tokenizer with --tokenizer_name; any encoder, on the same data and
with the same scores, with --model_name_or_path. Without arguments, a clone's recipes/ner.py trains on the sentences in
recipes/data/ner.
"""

from pathlib import Path

from transformers import set_seed

from ..training.arguments import CardArguments
from ..training.loading import ModelArguments
from ..training.ner import DataArguments, build, collator, fit, scoring
from ..training.trainer import TaggerTrainer, TaggerTrainingArguments, configure_logging, parse_arguments
from . import sample_config, sample_files


def main(argv: list[str], recipes: Path | None = None) -> None:
    """Run the command."""
    *settings, arguments = parse_arguments(
        (ModelArguments, DataArguments, CardArguments, TaggerTrainingArguments),
        argv or sample_config("sample.yaml", recipes),
    )
    model_arguments, data_arguments, _ = settings
    configure_logging(arguments)
    set_seed(arguments.seed)
    tokenizer, model, corpora = build(model_arguments, data_arguments, sample_files("ner", "txt", recipes))
    trainer = TaggerTrainer(
        model,
        arguments,
        data_collator=collator(tokenizer, data_arguments),
        train_dataset=corpora["train"].inputs,
        processing_class=tokenizer,
        **scoring(corpora),
    )
    fit(trainer, corpora, settings)
