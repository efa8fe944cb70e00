"""Pretraining of a BiLSTM on raw text: arguments and the encoding of the texts."""

from dataclasses import dataclass

from transformers import PreTrainedTokenizerBase
from transformers.hf_argparser import HfArg

from ..alignment import IGNORED
from ..data.morphology import morpheme_tags
from .arguments import TEXTS, TaggerTrainingArguments

BATCH = 10_000
"""Number of texts that are encoded at a time."""


@dataclass
class TextArguments:
    """Arguments that name the texts."""

    input_file: list[str] = HfArg(help=TEXTS)
    morphemes: bool = HfArg(default=False, help="Also learn the tags of the morphemes that Kiwi finds.")
    validation_texts: int = HfArg(default=2000, help="The number of random texts that are kept for validation.")
    max_seq_length: int = HfArg(default=160, help="The number of tokens after which texts are cut off.")


@dataclass
class PretrainingArguments(TaggerTrainingArguments):
    """`TaggerTrainingArguments` with defaults for one pass over a large number of texts."""

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

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("do_predict", "label_smoothing_factor", "push_to_hub"):
            if getattr(self, name):
                raise ValueError(
                    f"{name} is {getattr(self, name)}, but pretraining has no test data, smooths no labels and "
                    "publishes nothing: leave it out"
                )


def encode_raw_texts(texts: list[str], tokenizer: PreTrainedTokenizerBase, arguments: TextArguments) -> dict[str, list]:
    """Encode texts as columns `input_ids`, `attention_mask` and, with `--morphemes true`, `labels`.

    The labels are ids of morpheme tags, numbered in the order in which they occur.
    """
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
