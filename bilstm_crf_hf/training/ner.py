"""Training of a tagger: data, model and trainer from the arguments, and what a finished run leaves."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from datasets import DatasetDict
from transformers import AutoTokenizer, PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

from ..alignment import Span, render
from ..data.collation import TaggingCollator
from ..data.encoding import EncodedCorpus, best_labels
from ..data.ner import labels_of, load_ner_datasets
from ..data.splits import SourceArguments, load_splits
from ..evaluation.metrics import EntityScorer
from ..evaluation.runs import ENCODER_TOKENIZER, print_scores, save_run
from ..evaluation.tasks import TAGGING
from ..modeling_character_encoder import CharacterEncoderForTokenClassification
from ..processing_bilstm_crf import BiLSTMCRFProcessor
from .loading import ModelArguments, load_model, load_tokenizer
from .trainer import TaggerTrainer

logger = logging.getLogger("ner")


@dataclass
class DataArguments(SourceArguments):
    """Which sentences are trained on, and how they are cut and padded."""

    pad_to_max_length: bool = field(
        default=False, metadata={"help": "Whether to pad to max_seq_length instead of a batch's longest sentence."}
    )
    stride: int = field(default=32, metadata={"help": "Tokens that the parts of a split sentence share."})
    num_examples: int = field(default=5, metadata={"help": "Validation sentences that are printed at the end."})


def encode(
    datasets: DatasetDict,
    tokenizer: PreTrainedTokenizerBase,
    config: PreTrainedConfig,
    arguments: DataArguments,
    pieces: PreTrainedTokenizerBase | None,
) -> dict[str, EncodedCorpus]:
    labels = [config.id2label[i] for i in range(config.num_labels)]
    processor = BiLSTMCRFProcessor(tokenizer, config, pieces)
    limits, corpora = (arguments.max_seq_length, arguments.stride), {}
    for split, dataset in datasets.items():
        corpora[split] = corpus = EncodedCorpus(dataset, processor, labels, *limits)
        logger.info("%s: %d sentences, %d split for their length", split, len(dataset), corpus.split_sentences)
    return corpora


def collator(tokenizer: PreTrainedTokenizerBase, arguments: DataArguments) -> TaggingCollator:
    if not arguments.pad_to_max_length:
        return TaggingCollator(tokenizer)
    length = arguments.max_seq_length or tokenizer.model_max_length
    return TaggingCollator(tokenizer, padding="max_length", max_length=length)


def piece_tokenizer(
    model: PreTrainedModel, name: str | None, subfolder: str = ENCODER_TOKENIZER, **options
) -> PreTrainedTokenizerBase | None:
    """That of the encoder beside a tagger of characters, from where the tagger was saved; None of another model."""
    if not isinstance(model, CharacterEncoderForTokenClassification):
        return None
    return AutoTokenizer.from_pretrained(name, subfolder=subfolder, **options)


def print_examples(corpus: EncodedCorpus, entities: list[list[Span]], count: int) -> None:
    print("\nValidation sentences as the best model tags them:")
    for text, spans in zip(corpus.texts[:count], entities):
        print(" ", render(text, spans))


def build(
    model_arguments: ModelArguments, data_arguments: DataArguments, sample: Mapping[str, Path]
) -> tuple[PreTrainedTokenizerBase, PreTrainedModel, dict[str, EncodedCorpus]]:
    datasets = load_splits(load_ner_datasets, data_arguments, sample)
    tokenizer = load_tokenizer(model_arguments, datasets["train"]["text"])
    model = load_model(model_arguments, tokenizer, labels_of(datasets["train"]))
    subfolder = "" if model_arguments.head else ENCODER_TOKENIZER
    trust = model_arguments.trust_remote_code
    pieces = piece_tokenizer(model, model_arguments.model_name_or_path, subfolder, trust_remote_code=trust)
    corpora = encode(datasets, tokenizer, model.config, data_arguments, pieces)
    logger.info("%s: %d parameters", type(model).__name__, model.num_parameters())
    return tokenizer, model, corpora


def scoring(corpora: dict[str, EncodedCorpus]) -> dict[str, Any]:
    """The arguments of `TaggerTrainer` by which it is judged."""
    return {
        "eval_dataset": corpora["validation"].inputs,
        "compute_metrics": EntityScorer(corpora["validation"]),
        "preprocess_logits_for_metrics": best_labels,
        "columns": TAGGING.columns,
    }


def fit(trainer: TaggerTrainer, corpora: dict[str, EncodedCorpus], settings: Sequence[Any]) -> None:
    """Trains, saves all that a finished run has, and shows what came of it."""
    arguments = trainer.args
    inputs = {split: corpus.inputs for split, corpus in corpora.items()}
    scorers = {split: EntityScorer(corpus) for split, corpus in corpora.items()}
    final, results = trainer.train_and_score(inputs, scorers)
    results |= {f"{split}_sentences": len(corpus.texts) for split, corpus in corpora.items()}
    if soft := len(trainer.train_dataset) - len(inputs["train"]):
        results["train_soft_sentences"] = soft
    if trainer.is_world_process_zero():
        validation = corpora["validation"]
        if (pieces := validation.processor.piece_tokenizer) is not None:
            pieces.save_pretrained(Path(arguments.output_dir, ENCODER_TOKENIZER))
        entities = scorers["validation"].entities(final.predictions)
        predictions = zip(validation.texts, validation.spans, entities, strict=True)
        save_run(trainer, settings, results, predictions, TAGGING.columns)
        print_scores(results, TAGGING.columns, TAGGING.main_metric, arguments.output_dir)
        data_arguments = next(part for part in settings if isinstance(part, DataArguments))
        print_examples(validation, entities, data_arguments.num_examples)
        if arguments.push_to_hub:
            print("published:", trainer.push_to_hub())
