"""Pretrain a BiLSTM on raw text: python recipes/pretrain.py [config.yaml] --input_file text.parquet [...]

Writes what `recipes/ner.py` and `recipes/sequence_classification.py` start from with --model_name_or_path. A character
is guessed from what stands around it; with --morphemes true the tag of its morpheme, by Kiwi, is learnt as well, also
on the names in Kiwi's dictionaries.
"""

import logging
import sys
from dataclasses import dataclass, field

import pyarrow.compute as pc
from transformers import DataCollatorForTokenClassification, PreTrainedTokenizerBase, set_seed

from bilstm_crf_hf.alignment import IGNORED
from bilstm_crf_hf.configuration_bilstm_crf import BiLSTMCRFConfig
from bilstm_crf_hf.loading import ModelArguments, checked_fields, load_tokenizer
from bilstm_crf_hf.modeling_pretraining import BiLSTMForPreTraining
from bilstm_crf_hf.morphology import dictionary_names, morpheme_tags, tag_version
from bilstm_crf_hf.raw_text import read_all
from bilstm_crf_hf.tagging import cached_rows
from bilstm_crf_hf.training import (
    TaggerTrainer,
    TaggerTrainingArguments,
    checkpoint_to_resume,
    configure_logging,
    parse_arguments,
)

BATCH = 10_000
"""Texts that are encoded at a time."""

logger = logging.getLogger("pretrain")


@dataclass
class TextArguments:
    """Which text is read."""

    input_file: list[str] = field(
        metadata={
            "help": "Files of text: txt with a text a line, parquet, json or csv, with :COLUMN behind the name where "
            "it is not `text`. One that is named twice counts twice."
        }
    )
    morphemes: bool = field(default=False, metadata={"help": "Whether to learn morphemes from Kiwi as well."})
    validation_texts: int = field(default=2000, metadata={"help": "Random texts that are kept for validation."})
    max_seq_length: int = field(default=160, metadata={"help": "Texts are cut off after as many tokens."})


@dataclass
class PretrainingArguments(TaggerTrainingArguments):
    """`TaggerTrainingArguments` for one pass over much text."""

    output_dir: str = "outputs/pretrained"
    num_train_epochs: float = 1
    per_device_train_batch_size: int = 64
    weight_decay: float = 0.0
    warmup_steps: float = 0.02
    eval_strategy: str = "steps"
    eval_steps: float | None = 0.1
    save_strategy: str = "steps"
    save_steps: float = 0.1
    logging_strategy: str = "steps"
    logging_steps: float = 0.1
    load_best_model_at_end: bool = False
    metric_for_best_model: str | None = "loss"
    prediction_loss_only: bool = True


def encode(texts: list[str], tokenizer: PreTrainedTokenizerBase, arguments: TextArguments) -> dict[str, list]:
    """Rows of `input_ids`, `attention_mask` and, if morphemes are wanted, `labels`: ids of their tags as they come."""
    columns: dict[str, list] = {"input_ids": [], "attention_mask": []}
    ids: dict[str | None, int] = {None: IGNORED}
    for start in range(0, len(texts), BATCH):
        batch = texts[start : start + BATCH]
        encoded = tokenizer(
            batch,
            truncation=True,
            max_length=arguments.max_seq_length,
            return_offsets_mapping=arguments.morphemes,
            return_token_type_ids=False,
        )
        for name in columns.keys() - {"labels"}:
            columns[name] += encoded[name]
        if arguments.morphemes:
            rows = morpheme_tags(batch, encoded["offset_mapping"])
            columns.setdefault("labels", []).extend(
                [ids.setdefault(tag, len(ids) - 1) for tag in tags] for tags in rows
            )
    return columns


def main(argv: list[str]) -> None:
    model_arguments, text_arguments, arguments = parse_arguments(
        (ModelArguments, TextArguments, PretrainingArguments), argv
    )
    if model_arguments.model_name_or_path or model_arguments.embeddings_from or model_arguments.embeddings_file:
        raise ValueError("pretraining starts from nothing: name a tokenizer by tokenizer_name, and no model or vectors")
    if model_arguments.read_morphemes:
        raise ValueError("morphemes are inputs of taggers; to learn to tell them, it is --morphemes true")
    configure_logging(arguments)
    set_seed(arguments.seed)

    texts = read_all(text_arguments.input_file)
    if text_arguments.morphemes:
        texts += dictionary_names()
    tokenizer = load_tokenizer(model_arguments, texts)
    tags = tag_version() if text_arguments.morphemes else None
    content = (texts, tokenizer.backend_tokenizer.to_str(), tags, text_arguments.max_seq_length)
    dataset = cached_rows(content, lambda: encode(texts, tokenizer, text_arguments))
    num_tags = 1 + pc.max(pc.list_flatten(dataset.data["labels"])).as_py() if text_arguments.morphemes else 1
    splits = dataset.train_test_split(text_arguments.validation_texts, seed=arguments.seed)
    fields = checked_fields(model_arguments, BiLSTMCRFConfig)
    model = BiLSTMForPreTraining.from_tokenizer(tokenizer, num_labels=num_tags, **fields)
    logger.info("%d texts, %d parameters", len(dataset), model.bilstm.num_parameters())

    arguments.label_names = ["labels" if text_arguments.morphemes else "input_ids"]
    trainer = TaggerTrainer(
        model,
        arguments,
        data_collator=DataCollatorForTokenClassification(tokenizer),
        train_dataset=splits["train"],
        eval_dataset=splits["test"],
        processing_class=tokenizer,
        columns={},
    )
    trainer.train(resume_from_checkpoint=checkpoint_to_resume(arguments))
    if trainer.is_world_process_zero():
        model.save_pretrained(arguments.output_dir)
        tokenizer.save_pretrained(arguments.output_dir)
    logger.info("saved in %s, for --model_name_or_path", arguments.output_dir)


if __name__ == "__main__":
    main(sys.argv[1:])
