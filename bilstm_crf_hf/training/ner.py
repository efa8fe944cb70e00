"""Training of a tagger: the data, the model and the scores of a finished run."""

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
from ..evaluation.runs import ENCODER_TOKENIZER
from ..evaluation.tasks import TAGGING
from ..modeling_character_encoder import CharacterEncoderForTokenClassification
from ..processing_bilstm_crf import BiLSTMCRFProcessor
from .arguments import ModelArguments
from .loading import load_model, load_tokenizer
from .trainer import TaggerTrainer

logger = logging.getLogger(__name__)


@dataclass
class DataArguments(SourceArguments):
    """Arguments that name the sentences, and how they are split and padded."""

    pad_to_max_length: bool = field(
        default=False, metadata={"help": "Pad to max_seq_length instead of the longest sentence of a batch."}
    )
    stride: int = field(
        default=32, metadata={"help": "The number of tokens that neighbouring parts of a split sentence share."}
    )
    num_examples: int = field(
        default=5, metadata={"help": "The number of tagged validation sentences that are printed at the end."}
    )


def prepare_tagging(
    model_arguments: ModelArguments, data_arguments: DataArguments, sample: Mapping[str, Path]
) -> tuple[PreTrainedTokenizerBase, PreTrainedModel, dict[str, EncodedCorpus]]:
    """Load tokenizer and model, and encode the sentences.

    Args:
        model_arguments: the model and the tokenizer.
        data_arguments: the sentences.
        sample: the file of each split that is read if `data_arguments` name no data.

    Returns:
        The tokenizer, the model, and the encoded sentences of each split.
    """
    datasets = load_splits(load_ner_datasets, data_arguments, sample)
    tokenizer = load_tokenizer(model_arguments, datasets["train"]["text"])
    model = load_model(model_arguments, tokenizer, labels_of(datasets["train"]))
    logger.info("%s: %d parameters", type(model).__name__, model.num_parameters())
    pieces = load_piece_tokenizer(
        model,
        model_arguments.model_name_or_path,
        subfolder="" if model_arguments.head else ENCODER_TOKENIZER,
        trust_remote_code=model_arguments.trust_remote_code,
    )
    return tokenizer, model, _encode(datasets, tokenizer, model.config, data_arguments, pieces)


def load_piece_tokenizer(
    model: PreTrainedModel, name: str | None, subfolder: str = ENCODER_TOKENIZER, **options: Any
) -> PreTrainedTokenizerBase | None:
    """Load the tokenizer of the encoder in a tagger of characters; return None for any other model.

    Args:
        model: the tagger.
        name: the folder of the tagger, or its name on the Hub.
        subfolder: the folder of the tokenizer below it.
        options: further arguments of `AutoTokenizer.from_pretrained`.
    """
    if not isinstance(model, CharacterEncoderForTokenClassification):
        return None
    return AutoTokenizer.from_pretrained(name, subfolder=subfolder, **options)


def _encode(
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
        logger.info("%s: %d sentences, %d of them split", split, len(dataset), corpus.split_sentences)
    return corpora


def tagging_collator(tokenizer: PreTrainedTokenizerBase, arguments: DataArguments) -> TaggingCollator:
    """Return the collator that pads as `arguments` ask for."""
    if not arguments.pad_to_max_length:
        return TaggingCollator(tokenizer)
    length = arguments.max_seq_length or tokenizer.model_max_length
    return TaggingCollator(tokenizer, padding="max_length", max_length=length)


def scoring(corpora: dict[str, EncodedCorpus]) -> dict[str, Any]:
    """Return the arguments of [`TaggerTrainer`] for the evaluation on the validation split."""
    return {
        "eval_dataset": corpora["validation"].inputs,
        "compute_metrics": EntityScorer(corpora["validation"]),
        "preprocess_logits_for_metrics": best_labels,
        "columns": TAGGING.columns,
    }


def train_tagger(trainer: TaggerTrainer, corpora: dict[str, EncodedCorpus], settings: Sequence[Any]) -> None:
    """Train a tagger, save the finished run and print its scores and examples.

    Args:
        trainer: the trainer of the tagger, with all arguments of `scoring`.
        corpora: the encoded sentences of each split.
        settings: the argument dataclasses of the run without those of the training; the second are `DataArguments`.
    """
    inputs = {split: corpus.inputs for split, corpus in corpora.items()}
    scorers = {split: EntityScorer(corpus) for split, corpus in corpora.items()}
    final, results = trainer.train_and_score(inputs, scorers)
    results |= {f"{split}_sentences": len(corpus.texts) for split, corpus in corpora.items()}
    if trainer.is_world_process_zero():
        validation = corpora["validation"]
        if (pieces := validation.processor.piece_tokenizer) is not None:
            pieces.save_pretrained(Path(trainer.args.output_dir, ENCODER_TOKENIZER))
        entities = scorers["validation"].entities(final.predictions)
        trainer.finish(settings, results, zip(validation.texts, validation.spans, entities, strict=True))
        print_examples(validation, entities, settings[1].num_examples)


def print_examples(corpus: EncodedCorpus, entities: list[list[Span]], count: int) -> None:
    """Print the first `count` sentences with their predicted entities."""
    print("\nValidation sentences, tagged by the best model:")
    for text, spans in zip(corpus.texts[:count], entities):
        print(" ", render(text, spans))
