"""Training of a tagger: data, model and trainer from the arguments, and what a finished run leaves."""

import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from datasets import DatasetDict
from seqeval.scheme import IOB2, Entities
from transformers import AutoTokenizer, PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

from ..alignment import Span, render
from ..data.collation import TaggingCollator
from ..data.encoding import PIECES, EncodedCorpus, best_labels
from ..data.ner import labels_of, load_ner_datasets
from ..data.splits import SourceArguments, load_splits
from ..evaluation.runs import print_scores, save_run
from ..modeling_character_encoder import CharacterEncoderForTokenClassification
from ..processing_bilstm_crf import BiLSTMCRFProcessor
from .loading import ModelArguments, load_model, load_tokenizer
from .trainer import TaggerTrainer

COLUMNS = {
    "f1": "F1",
    "klue_entity_macro_f1": "KLUE entity F1",
    "klue_char_macro_f1": "KLUE character F1",
    "token_f1": "token F1",
}
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


def prediction_rows(corpus: EncodedCorpus, predictions: Sequence[Sequence[int]]) -> Iterator[dict]:
    """What `reporting.save_predictions` takes: of each sentence the text, its gold and its predicted entities.

    The predicted ones are those that the strict scores count. `corpus.decode` also begins entities at stray I- tags,
    which a model without a CRF may predict.
    """
    rows = zip(corpus.texts, corpus.spans, corpus.predicted_tags(predictions), strict=True)
    for text, gold, tags in rows:
        visible = [i for i, character in enumerate(text) if not character.isspace()]
        strict = Entities([tags], IOB2).entities[0]
        predicted = [Span(visible[entity.start], visible[entity.end - 1] + 1, entity.tag) for entity in strict]
        yield {"text": text, "gold": gold, "predicted": predicted}


def collator(tokenizer: PreTrainedTokenizerBase, arguments: DataArguments) -> TaggingCollator:
    if not arguments.pad_to_max_length:
        return TaggingCollator(tokenizer)
    length = arguments.max_seq_length or tokenizer.model_max_length
    return TaggingCollator(tokenizer, padding="max_length", max_length=length)


def piece_tokenizer(
    model: PreTrainedModel, name: str | None, subfolder: str = PIECES, **options
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
    subfolder = "" if model_arguments.head else PIECES
    trust = model_arguments.trust_remote_code
    pieces = piece_tokenizer(model, model_arguments.model_name_or_path, subfolder, trust_remote_code=trust)
    corpora = encode(datasets, tokenizer, model.config, data_arguments, pieces)
    logger.info("%s: %d parameters", type(model).__name__, model.num_parameters())
    return tokenizer, model, corpora


def scoring(corpora: dict[str, EncodedCorpus]) -> dict[str, Any]:
    """The arguments of `TaggerTrainer` by which it is judged."""
    return {
        "eval_dataset": corpora["validation"].inputs,
        "compute_metrics": corpora["validation"].scorer(),
        "preprocess_logits_for_metrics": best_labels,
        "columns": COLUMNS,
    }


def fit(trainer: TaggerTrainer, corpora: dict[str, EncodedCorpus], settings: Sequence[Any]) -> None:
    """Trains, saves all that a finished run has, and shows what came of it."""
    arguments = trainer.args
    inputs = {split: corpus.inputs for split, corpus in corpora.items()}
    final, results = trainer.train_and_score(inputs, {split: corpus.scorer() for split, corpus in corpora.items()})
    results |= {f"{split}_sentences": len(corpus.texts) for split, corpus in corpora.items()}
    if soft := len(trainer.train_dataset) - len(inputs["train"]):
        results["train_soft_sentences"] = soft
    if trainer.is_world_process_zero():
        validation = corpora["validation"]
        if (pieces := validation.processor.piece_tokenizer) is not None:
            pieces.save_pretrained(Path(arguments.output_dir, PIECES))
        save_run(trainer, settings, results, prediction_rows(validation, final.predictions), COLUMNS)
        print_scores(results, COLUMNS, "f1", arguments.output_dir)
        data_arguments = next(part for part in settings if isinstance(part, DataArguments))
        print_examples(validation, validation.decode(final.predictions), data_arguments.num_examples)
        if arguments.push_to_hub:
            print("published:", trainer.push_to_hub())
