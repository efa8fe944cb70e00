"""Train a tagger: accelerate launch recipes/ner.py [config.yaml] [--argument value ...]

A new BiLSTM-CRF over characters by default; over any tokenizer with --tokenizer_name; any encoder, on the same data and
with the same scores, with --model_name_or_path. Without arguments it trains on the sentences in recipes/data/ner.
"""

import logging
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from datasets import DatasetDict
from seqeval.scheme import IOB2, Entities
from transformers import AutoTokenizer, PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerBase, set_seed

from bilstm_crf_hf.alignment import Span, render
from bilstm_crf_hf.collation import TaggingCollator
from bilstm_crf_hf.corpora import labels_of, load_ner_datasets
from bilstm_crf_hf.loading import ModelArguments, load_model, load_tokenizer
from bilstm_crf_hf.model_card import CardArguments
from bilstm_crf_hf.modeling_character_encoder import CharacterEncoderForTokenClassification
from bilstm_crf_hf.reporting import print_scores, save_run
from bilstm_crf_hf.sources import SourceArguments, load_splits
from bilstm_crf_hf.tagging import PIECES, EncodedCorpus, best_labels
from bilstm_crf_hf.training import TaggerTrainer, TaggerTrainingArguments, configure_logging, parse_arguments

HERE = Path(__file__).parent
SAMPLE = {split: HERE / "data" / "ner" / f"{split}.txt" for split in ("train", "validation")}
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
    labels, morphemes = [config.id2label[i] for i in range(config.num_labels)], getattr(config, "morphemes", None)
    limits, corpora = (arguments.max_seq_length, arguments.stride), {}
    for split, dataset in datasets.items():
        corpora[split] = corpus = EncodedCorpus(dataset, tokenizer, labels, *limits, pieces, morphemes)
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
    model_arguments: ModelArguments, data_arguments: DataArguments
) -> tuple[PreTrainedTokenizerBase, PreTrainedModel, dict[str, EncodedCorpus]]:
    datasets = load_splits(load_ner_datasets, data_arguments, SAMPLE)
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
        if validation.pieces is not None:
            validation.pieces.save_pretrained(Path(arguments.output_dir, PIECES))
        save_run(trainer, settings, results, prediction_rows(validation, final.predictions), COLUMNS)
        print_scores(results, COLUMNS, "f1", arguments.output_dir)
        data_arguments = next(part for part in settings if isinstance(part, DataArguments))
        print_examples(validation, validation.decode(final.predictions), data_arguments.num_examples)
        if arguments.push_to_hub:
            print("published:", trainer.push_to_hub())


def main(argv: list[str]) -> None:
    *settings, arguments = parse_arguments(
        (ModelArguments, DataArguments, CardArguments, TaggerTrainingArguments),
        argv or [str(HERE / "configs" / "sample.yaml")],
    )
    model_arguments, data_arguments, _ = settings
    configure_logging(arguments)
    set_seed(arguments.seed)
    tokenizer, model, corpora = build(model_arguments, data_arguments)
    trainer = TaggerTrainer(
        model,
        arguments,
        data_collator=collator(tokenizer, data_arguments),
        train_dataset=corpora["train"].inputs,
        processing_class=tokenizer,
        **scoring(corpora),
    )
    fit(trainer, corpora, settings)


if __name__ == "__main__":
    main(sys.argv[1:])
