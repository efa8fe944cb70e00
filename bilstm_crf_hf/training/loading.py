"""Model and tokenizer that a recipe trains: new ones, pretrained ones, or a new head on a pretrained encoder."""

import json
import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from transformers import (
    AutoConfig,
    AutoTokenizer,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from ..configuration_bilstm_crf import BiLSTMCRFConfig
from ..data.morphology import morpheme_table
from ..data.tokenization import build_character_tokenizer
from ..evaluation.tasks import TAGGING, Task, label_maps
from ..modeling_bilstm_crf import BiLSTMCRFPreTrainedModel
from ..morphemes import installed_kiwi_version, kiwi
from .embeddings import copy_vectors, encoder_vectors, file_vectors

logger = logging.getLogger(__name__)


@dataclass
class ModelArguments:
    """Which model is trained, over which tokens."""

    model_name_or_path: str | None = field(
        default=None,
        metadata={"help": "Model on the Hub or in a folder to fine-tune. Default: a new BiLSTM-CRF."},
    )
    tokenizer_name: str | None = field(
        default=None,
        metadata={"help": "Tokenizer on the Hub or in a folder. Default: the model's; of a new one, characters."},
    )
    config_overrides: dict | str | None = field(
        default=None,
        metadata={"help": "Fields of the model's configuration: a mapping in YAML, JSON on the command line."},
    )
    embeddings_from: str | None = field(
        default=None,
        metadata={"help": "Encoder whose input embeddings a new BiLSTM-CRF starts with; also its tokenizer's default."},
    )
    embeddings_file: str | None = field(
        default=None, metadata={"help": "File of word2vec, GloVe or fastText vectors that it starts with instead."}
    )
    read_morphemes: bool = field(
        default=False, metadata={"help": "Whether a BiLSTM-CRF also reads morphemes, by Kiwi (pip: kiwipiepy)."}
    )
    freeze_embeddings: bool = field(default=False, metadata={"help": "Whether these embeddings stay as they are."})
    head: str | None = field(
        default=None,
        metadata={
            "help": "New head on the encoder model_name_or_path: crf, characters (beside the pretrained BiLSTM in "
            "tokenizer_name), or mlp. Default: transformers' linear one."
        },
    )
    min_frequency: int = field(
        default=2, metadata={"help": "Characters rarer than this in the training set are unknown to a new tokenizer."}
    )
    trust_remote_code: bool = field(default=False, metadata={"help": "Whether to run code that a model brings along."})

    def __post_init__(self) -> None:
        if self.embeddings_from and self.embeddings_file:
            raise ValueError("give embeddings_from or embeddings_file, not both")
        if self.model_name_or_path and (self.embeddings_from or self.embeddings_file):
            raise ValueError("embeddings are copied into a new BiLSTM-CRF: leave them out with model_name_or_path")
        if self.freeze_embeddings and not (self.embeddings_from or self.embeddings_file):
            raise ValueError("freeze_embeddings goes with embeddings_from or embeddings_file: random ones must learn")
        if self.head and not self.model_name_or_path:
            raise ValueError("head wants an encoder: name it as model_name_or_path; a new BiLSTM has its own")
        if isinstance(self.config_overrides, str):
            try:
                self.config_overrides = json.loads(self.config_overrides)
            except json.JSONDecodeError as error:
                raise ValueError(f"config_overrides is not JSON ({error}): {self.config_overrides}") from None


def load_tokenizer(arguments: ModelArguments, texts: Iterable[str]) -> PreTrainedTokenizerBase:
    """The tokenizer that `arguments` name, or a new one for the characters of `texts`."""
    name = arguments.tokenizer_name or arguments.model_name_or_path or arguments.embeddings_from
    if name is None:
        return build_character_tokenizer(texts, arguments.min_frequency)
    return AutoTokenizer.from_pretrained(name, trust_remote_code=arguments.trust_remote_code)


def load_model(
    arguments: ModelArguments, tokenizer: PreTrainedTokenizerBase, labels: Sequence[str], task: Task = TAGGING
) -> PreTrainedModel:
    """The model that `arguments` name, with a head for `labels`, or a new BiLSTM.

    A model that has been trained on all of the labels keeps its own list of them; a pretrained one gets these.

    Raises:
        ImportError: it is to read morphemes, and Kiwi is missing.
        ValueError: the model has labels of its own, and not all of these; `config_overrides` names no field of the
            configuration; the task has no such `head`; the model is none that reads morphemes.
    """
    names = label_maps(labels)
    if arguments.model_name_or_path is None:
        return _new_bilstm(arguments, tokenizer, names, task)
    options = {"trust_remote_code": arguments.trust_remote_code}
    if arguments.head is not None:
        if arguments.head not in task.heads:
            raise ValueError(f"head is {' or '.join(task.heads)}, not {arguments.head}")
        head = task.heads[arguments.head].model_class
        fields = checked_fields(arguments, head.config_class) | _morphemes(arguments, head.config_class(), task)
        return head.from_encoder(arguments.model_name_or_path, tokenizer, **options, **names, **fields)
    config = AutoConfig.from_pretrained(arguments.model_name_or_path, **options)
    morphemes = _morphemes(arguments, config, task)
    options |= checked_fields(arguments, type(config)) | morphemes
    own = config.id2label
    # Labels go with a head: those of pretraining, or of a tagger whose head has been taken off, mean nothing here.
    bodies = ("Model", "ForPreTraining")
    is_body = bool(config.architectures) and all(name.endswith(bodies) for name in config.architectures)
    if is_body or all(label.startswith("LABEL_") for label in own.values()):
        options |= names
    elif missing := sorted(set(labels) - set(own.values())):
        raise ValueError(
            f"{arguments.model_name_or_path} has no label {', '.join(missing)} (it has {', '.join(own.values())}): "
            "train on data with its labels, or start from a model without a head"
        )
    model = task.auto_class.from_pretrained(arguments.model_name_or_path, **options)
    if morphemes:
        torch.nn.init.zeros_(model.bilstm.features.morpheme_embeddings.weight)  # so that it says what it said
        model.bilstm.features.set_morpheme_table(morpheme_table())
    return model


def _morphemes(arguments: ModelArguments, config: PreTrainedConfig, task: Task) -> dict[str, str]:
    """The field of the configuration by which a model is to read morphemes, unless it does."""
    if not arguments.read_morphemes:
        return {}
    if config.model_type != BiLSTMCRFConfig.model_type or task is not TAGGING:
        raise ValueError(
            f"read_morphemes is for BiLSTM-CRF taggers, not for {config.model_type} or classifiers of texts: say "
            "--read_morphemes false"
        )
    kiwi()  # the error says how to install it
    return {"kiwi_version": installed_kiwi_version()} if config.kiwi_version is None else {}


def _new_bilstm(
    arguments: ModelArguments, tokenizer: PreTrainedTokenizerBase, names: dict[str, dict], task: Task
) -> BiLSTMCRFPreTrainedModel:
    morphemes = _morphemes(arguments, BiLSTMCRFConfig(), task)
    fields = checked_fields(arguments, BiLSTMCRFConfig) | morphemes
    vectors = None
    if arguments.embeddings_from:
        vectors = encoder_vectors(arguments.embeddings_from, arguments.trust_remote_code)
    elif arguments.embeddings_file:
        vectors = file_vectors(arguments.embeddings_file)
    if vectors is not None:
        fields.setdefault("embedding_size", vectors.width)
    model = task.bilstm.model_class.from_tokenizer(tokenizer, **names, **fields)
    if morphemes:
        model.bilstm.features.set_morpheme_table(morpheme_table())
    if vectors is None:
        return model
    embeddings = model.get_input_embeddings()
    found = copy_vectors(embeddings, tokenizer, vectors)
    logger.info("vectors for %d of %d tokens (%.1f %%)", found, len(tokenizer), 100 * found / len(tokenizer))
    embeddings.weight.requires_grad_(not arguments.freeze_embeddings)
    return model


def checked_fields(arguments: ModelArguments, config_class: type) -> dict[str, Any]:
    """`config_overrides`, if they are all fields of `config_class`."""
    overrides = dict(arguments.config_overrides or {})
    if "kiwi_version" in overrides:
        raise ValueError("config_overrides: kiwi_version cannot be set there: use --read_morphemes true")
    if unknown := sorted(set(overrides) - set(config_class.__dataclass_fields__)):
        raise ValueError(f"config_overrides: {config_class.__name__} has no field {', '.join(unknown)}")
    return overrides
