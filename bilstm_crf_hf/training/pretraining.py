"""Pretrain a BiLSTM on raw text: python recipes/pretrain.py [config.yaml] --input_file text.parquet [...]

Writes what `recipes/ner.py` and `recipes/sequence_classification.py` start from with --model_name_or_path. A character
is guessed from what stands around it; with --morphemes true the tag of its morpheme, by Kiwi, is learnt as well, also
on the names in Kiwi's dictionaries.
"""

import logging
from dataclasses import dataclass, field

from transformers import PreTrainedTokenizerBase

from ..alignment import IGNORED
from ..data.morphology import morpheme_tags
from .trainer import (
    TaggerTrainingArguments,
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
