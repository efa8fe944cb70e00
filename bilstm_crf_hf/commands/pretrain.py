"""Pretrain a BiLSTM on raw text: bilstm-crf pretrain [config.yaml] --input_file text.parquet [...]

`bilstm-crf ner` and `bilstm-crf classify` start from the output folder with --model_name_or_path. The BiLSTM learns to
predict each character from its context. With --morphemes true it also learns the tags that Kiwi gives to morphemes, on
the texts and on the names in Kiwi's dictionaries.
"""

import logging
from pathlib import Path

import pyarrow.compute as pc
from transformers import DataCollatorForTokenClassification

from ..configuration_bilstm_crf import BiLSTMCRFConfig
from ..data.encoding import cached_rows
from ..data.morphology import dictionary_names, morphology_version
from ..data.raw_text import read_all
from ..modeling_pretraining import BiLSTMForPreTraining
from ..training.arguments import ModelArguments
from ..training.checkpoints import checkpoint_to_resume
from ..training.loading import checked_overrides, checked_values, load_tokenizer
from ..training.pretraining import PretrainingArguments, TextArguments, encode_raw_texts
from ..training.trainer import TaggerTrainer
from .training_steps import start_training

logger = logging.getLogger(__name__)


def main(argv: list[str], recipes: Path | None = None) -> None:
    """Run the command."""
    with start_training((ModelArguments, TextArguments, PretrainingArguments), argv, __doc__) as (
        model_arguments,
        text_arguments,
        arguments,
    ):
        if model_arguments.model_name_or_path or model_arguments.embeddings_from or model_arguments.embeddings_file:
            problem = "pretraining starts from random weights"
            raise ValueError(f"{problem}: leave out model_name_or_path, embeddings_from and embeddings_file")
        if model_arguments.read_morphemes:
            raise ValueError("read_morphemes is for taggers: give --morphemes true to learn the tags of morphemes")

        texts = read_all(text_arguments.input_file)
        if len(texts) <= text_arguments.validation_texts:
            raise ValueError(
                f"there are {len(texts)} texts: give more than the {text_arguments.validation_texts} for validation"
            )
        if text_arguments.morphemes:
            texts += dictionary_names()
        tokenizer = load_tokenizer(model_arguments, texts)
        tags = morphology_version() if text_arguments.morphemes else None
        content = (texts, tokenizer.backend_tokenizer.to_str(), tags, text_arguments.max_seq_length)
        dataset = cached_rows(content, lambda: encode_raw_texts(texts, tokenizer, text_arguments))
        num_tags = 1 + pc.max(pc.list_flatten(dataset.data["labels"])).as_py() if text_arguments.morphemes else 1
        splits = dataset.train_test_split(text_arguments.validation_texts, seed=arguments.seed)
        fields = checked_overrides(model_arguments, BiLSTMCRFConfig)
        with checked_values():
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
