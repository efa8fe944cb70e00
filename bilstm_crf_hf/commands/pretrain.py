"""Pretrain a BiLSTM on raw text: bilstm-crf pretrain [config.yaml] --input_file text.parquet [...]

Writes what `ner` and `classify` start from with --model_name_or_path. A character is guessed from what stands around
it; with --morphemes true the tag of its morpheme, by Kiwi, is learnt as well, also on the names in Kiwi's dictionaries.
"""

import logging
from pathlib import Path

import pyarrow.compute as pc
from transformers import DataCollatorForTokenClassification, set_seed

from ..configuration_bilstm_crf import BiLSTMCRFConfig
from ..data.encoding import cached_rows
from ..data.morphology import dictionary_names, morphology_version
from ..data.raw_text import read_all
from ..modeling_pretraining import BiLSTMForPreTraining
from ..training.loading import ModelArguments, checked_fields, load_tokenizer
from ..training.pretraining import PretrainingArguments, TextArguments, encode
from ..training.trainer import TaggerTrainer, checkpoint_to_resume, configure_logging, parse_arguments

logger = logging.getLogger(__name__)


def main(argv: list[str], recipes: Path | None = None) -> None:
    """Run the command."""
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
    tags = morphology_version() if text_arguments.morphemes else None
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
