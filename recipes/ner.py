"""Train a tagger: accelerate launch recipes/ner.py [config.yaml] [--argument value ...]

A new BiLSTM-CRF over characters by default; over any tokenizer with --tokenizer_name; any encoder, on the same data and
with the same scores, with --model_name_or_path. Without arguments it trains on the sentences in recipes/data/ner.
"""

import logging
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from datasets import DatasetDict
from seqeval.scheme import IOB2, Entities
from transformers import DataCollatorForTokenClassification, set_seed

from bilstm_crf_hf.alignment import Span, render
from bilstm_crf_hf.corpora import labels_of, load_ner_datasets
from bilstm_crf_hf.loading import ModelArguments, load_model, load_tokenizer
from bilstm_crf_hf.reporting import PREDICTIONS, plot_training, save_predictions, training_summary
from bilstm_crf_hf.tagging import EncodedCorpus, best_labels
from bilstm_crf_hf.training import TaggerTrainer, TaggerTrainingArguments, checkpoint_to_resume, parse_arguments

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
class DataArguments:
    """Which sentences are trained on, and how long they may be."""

    dataset_name: str | None = field(
        default=None, metadata={"help": "Data set on the Hub, such as klue, if no files are named."}
    )
    dataset_config_name: str | None = field(default=None, metadata={"help": "Its configuration, such as ner."})
    train_file: str | None = field(default=None, metadata={"help": "Parquet, json, KLUE tsv, inline txt or CoNLL."})
    validation_file: str | None = field(default=None, metadata={"help": "Likewise."})
    test_file: str | None = field(default=None, metadata={"help": "Likewise; evaluated once, at the end."})
    text_column_name: str | None = field(default=None, metadata={"help": "Column of tokens or text."})
    label_column_name: str | None = field(default=None, metadata={"help": "Column of tags."})
    max_seq_length: int | None = field(
        default=None, metadata={"help": "Limit in tokens. Longer sentences are split. Default: the tokenizer's."}
    )
    pad_to_max_length: bool = field(
        default=False, metadata={"help": "Whether to pad to max_seq_length instead of a batch's longest sentence."}
    )
    stride: int = field(default=32, metadata={"help": "Tokens that the parts of a split sentence share."})
    max_train_samples: int | None = field(default=None, metadata={"help": "Use the first sentences only."})
    max_eval_samples: int | None = field(default=None, metadata={"help": "Use the first sentences only."})
    num_examples: int = field(default=5, metadata={"help": "Validation sentences that are printed at the end."})


def load_data(arguments: DataArguments) -> DatasetDict:
    """The splits from files, which win over a data set's name; from the embedded sample, if there is neither."""
    files = {split: getattr(arguments, f"{split}_file") for split in ("train", "validation", "test")}
    files = {split: path for split, path in files.items() if path}
    if not files and arguments.dataset_name is None:
        files = SAMPLE
    datasets = load_ner_datasets(
        None if files else arguments.dataset_name,
        None if files else arguments.dataset_config_name,
        files,
        text_column=arguments.text_column_name,
        tags_column=arguments.label_column_name,
    )
    if missing := {"train", "validation"} - set(datasets):
        raise ValueError(f"there is no {' and no '.join(sorted(missing))} split: name a file for it")
    limits = {"train": arguments.max_train_samples, "validation": arguments.max_eval_samples}
    for split, limit in limits.items():
        if limit is not None:
            datasets[split] = datasets[split].select(range(min(limit, len(datasets[split]))))
    return datasets


def encode(datasets: DatasetDict, tokenizer, labels: list[str], arguments: DataArguments) -> dict[str, EncodedCorpus]:
    corpora = {}
    for split, dataset in datasets.items():
        corpus = EncodedCorpus(dataset, tokenizer, labels, arguments.max_seq_length, arguments.stride)
        corpora[split] = corpus
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


def collator(tokenizer, arguments: DataArguments) -> DataCollatorForTokenClassification:
    if not arguments.pad_to_max_length:
        return DataCollatorForTokenClassification(tokenizer)
    length = arguments.max_seq_length or tokenizer.model_max_length
    return DataCollatorForTokenClassification(tokenizer, padding="max_length", max_length=length)


def print_report(results: dict[str, float], output_dir: str) -> None:
    print(
        f"\nbest F1 {results['best_f1']:.4f} in epoch {results['best_epoch']:g}, mean F1 {results['mean_f1']:.4f}, "
        f"{results['train_seconds']:.0f} s for {results['epochs']} epochs of training, "
        f"{results['seconds_per_epoch']:.1f} s an epoch"
    )
    print("best model:", ", ".join(f"{name} {results[f'eval_{key}']:.4f}" for key, name in COLUMNS.items()))
    print(f"saved in {output_dir}, for from_pretrained(..., trust_remote_code=True)")


def print_examples(corpus: EncodedCorpus, entities: list[list[Span]], count: int) -> None:
    print("\nValidation sentences as the best model tags them:")
    for text, spans in zip(corpus.texts[:count], entities):
        print(" ", render(text, spans))


def main(argv: list[str]) -> None:
    model_arguments, data_arguments, arguments = parse_arguments(
        (ModelArguments, DataArguments, TaggerTrainingArguments), argv or [str(HERE / "configs" / "sample.yaml")]
    )
    logging.basicConfig(level=logging.INFO if arguments.should_log else logging.WARNING, format="%(message)s")
    logging.getLogger("httpx").setLevel(logging.WARNING)
    set_seed(arguments.seed)

    datasets = load_data(data_arguments)
    tokenizer = load_tokenizer(model_arguments, datasets["train"]["text"])
    model = load_model(model_arguments, tokenizer, labels_of(datasets["train"]))
    labels = [model.config.id2label[i] for i in range(model.config.num_labels)]
    corpora = encode(datasets, tokenizer, labels, data_arguments)
    logger.info("%s: %d parameters", type(model).__name__, model.num_parameters())

    trainer = TaggerTrainer(
        model,
        arguments,
        data_collator=collator(tokenizer, data_arguments),
        train_dataset=corpora["train"].inputs,
        eval_dataset=corpora["validation"].inputs,
        processing_class=tokenizer,
        compute_metrics=corpora["validation"].scorer(),
        preprocess_logits_for_metrics=best_labels,
        columns=COLUMNS,
    )
    trainer.train(resume_from_checkpoint=checkpoint_to_resume(arguments))
    trainer.save_state()

    final = trainer.predict(corpora["validation"].inputs, metric_key_prefix="eval")
    results = final.metrics | training_summary(trainer.state.log_history, trainer.epoch_report.seconds)
    if "test" in corpora:
        trainer.compute_metrics = corpora["test"].scorer()
        results |= trainer.predict(corpora["test"].inputs, metric_key_prefix="test").metrics
    results |= {f"{split}_sentences": len(dataset) for split, dataset in datasets.items()}
    results |= {"parameters": model.num_parameters(), "seed": arguments.seed}
    if trainer.is_world_process_zero():
        model.save_pretrained(arguments.output_dir)
        tokenizer.save_pretrained(arguments.output_dir)
        rows = prediction_rows(corpora["validation"], final.predictions)
        save_predictions(Path(arguments.output_dir, PREDICTIONS), rows)
        # The last of what a comparison reads: a folder that has it is a finished run.
        trainer.save_metrics("all", results, combined=False)
        plot_training(trainer.state.log_history, Path(arguments.output_dir, "training.png"), COLUMNS)
        print_report(results, arguments.output_dir)
        print_examples(
            corpora["validation"], corpora["validation"].decode(final.predictions), data_arguments.num_examples
        )


if __name__ == "__main__":
    main(sys.argv[1:])
