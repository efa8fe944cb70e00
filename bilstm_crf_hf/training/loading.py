"""Model and tokenizer of a training: a new BiLSTM, a pretrained model, or a new head on a pretrained encoder."""

import logging
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from huggingface_hub.errors import StrictDataclassError
from transformers import (
    AutoConfig,
    AutoModel,
    AutoTokenizer,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from ..configuration_bilstm_crf import BiLSTMCRFConfig
from ..data.morphology import clusters_by_hash
from ..data.tokenization import build_character_tokenizer
from ..data.vectors import file_vectors
from ..evaluation.tasks import TAGGING, Task, label_maps
from ..inference.predictors import PREDICTORS
from ..modeling_bilstm_crf import BiLSTMCRFModel, BiLSTMCRFPreTrainedModel
from ..modeling_character_encoder import CharacterEncoderForTokenClassification
from ..models import model_path
from ..morphemes import kiwi
from .arguments import NEW_HEAD, ModelArguments
from .embeddings import WordVectors, copy_vectors, encoder_vectors, word_vectors
from .new_labels import entity_types, labels_to_add, with_labels

TOKENS = "it follows from the tokenizer"
VECTORS = "it follows from the vectors in embeddings_file"
NOT_OVERRIDDEN = dict.fromkeys(PreTrainedConfig.__dataclass_fields__, "it does not shape the model") | {
    "read_morphemes": "use --read_morphemes true",
    "problem_type": "each text has one label",
    "id2label": "the labels are those of the data",
    "label2id": "the labels are those of the data",
    "vocab_size": TOKENS,
    "token_columns": TOKENS,
    "special_token_ids": TOKENS,
    "num_word_vectors": VECTORS,
    "word_vector_size": VECTORS,
}
"""Fields of a configuration that `config_overrides` cannot set, and where they come from."""

logger = logging.getLogger(__name__)


def load_tokenizer(arguments: ModelArguments, texts: Iterable[str]) -> PreTrainedTokenizerBase:
    """Load the tokenizer that `arguments` name, or build one for the characters of `texts`."""
    name = arguments.tokenizer_name or arguments.model_name_or_path or arguments.embeddings_from
    if name is None:
        unit = (arguments.config_overrides or {}).get("unit", BiLSTMCRFConfig.unit)  # type: ignore[union-attr]  # a dict
        return build_character_tokenizer(texts, arguments.min_frequency, unit=unit)
    return AutoTokenizer.from_pretrained(model_path(name), trust_remote_code=arguments.trust_remote_code)


def load_model(
    arguments: ModelArguments,
    tokenizer: PreTrainedTokenizerBase,
    labels: Sequence[str],
    task: Task = TAGGING,
    texts: Iterable[str] = (),
) -> PreTrainedModel:
    """Load the model that `arguments` name, or create a new BiLSTM.

    Args:
        arguments: the model, its head and the fields of its configuration.
        tokenizer: the tokenizer of the model.
        labels: the labels of a new head. A model that has been trained on all of them keeps its own list of labels.
        task: the task of the training.
        texts: training texts, whose words get the pretrained vectors of a tagger of words.

    Raises:
        ImportError: if the model is to read morphemes and Kiwi is not installed.
        ValueError: if the model lacks one of the labels, if `config_overrides` has a name that is not a field of the
            configuration or a value that it cannot have, if the task has no such head, or if the model cannot read
            morphemes.
    """
    with checked_values():
        if arguments.model_name_or_path is None:
            model = _new_bilstm(arguments, tokenizer, labels, task, texts)
        elif arguments.head not in (None, NEW_HEAD):
            model = _new_head(arguments, arguments.head, tokenizer, labels, task)
        else:
            model = _pretrained(arguments, labels, task)
    logger.info("%s: %d parameters", type(model).__name__, model.num_parameters())
    return model


def _new_bilstm(
    arguments: ModelArguments,
    tokenizer: PreTrainedTokenizerBase,
    labels: Sequence[str],
    task: Task,
    texts: Iterable[str],
) -> BiLSTMCRFPreTrainedModel:
    morphemes = _morpheme_field(arguments, BiLSTMCRFConfig(), task)
    fields = checked_overrides(arguments, BiLSTMCRFConfig) | morphemes
    vectors = of_words = None
    if fields.get("unit") == "words":
        of_words = _word_vectors(arguments, tokenizer, texts)
        if of_words is not None:
            count, width = of_words.vectors.shape
            fields |= {"num_word_vectors": 1 + count, "word_vector_size": width}
    elif arguments.embeddings_from:
        vectors = encoder_vectors(arguments.embeddings_from, arguments.trust_remote_code)
    elif arguments.embeddings_file:
        vectors = file_vectors(arguments.embeddings_file)
    if vectors is not None:
        fields.setdefault("embedding_size", vectors.width)
    model = task.bilstm.model_class.from_tokenizer(tokenizer, **label_maps(labels), **fields)
    if morphemes:
        model.bilstm.features.set_clusters(clusters_by_hash())
    if vectors is not None:
        embeddings = model.get_input_embeddings()
        found = copy_vectors(embeddings, tokenizer, vectors)
        logger.info("vectors for %d of %d tokens (%.1f %%)", found, len(tokenizer), 100 * found / len(tokenizer))
        embeddings.weight.requires_grad_(not arguments.freeze_embeddings)
    if of_words is not None:
        model.bilstm.features.set_vectors(*of_words)
        model.bilstm.features.word_vectors.weight.requires_grad_(not arguments.freeze_embeddings)
    return model


def _word_vectors(
    arguments: ModelArguments, tokenizer: PreTrainedTokenizerBase, texts: Iterable[str]
) -> WordVectors | None:
    """Read the vectors for a new tagger of words, if a file is named."""
    if arguments.embeddings_from:
        raise ValueError('embeddings_from is for unit "characters": name a file of vectors of words in embeddings_file')
    if arguments.embeddings_file is None:
        return None
    return word_vectors(arguments.embeddings_file, tokenizer, texts, arguments.other_vectors)


def _new_head(
    arguments: ModelArguments, name: str, tokenizer: PreTrainedTokenizerBase, labels: Sequence[str], task: Task
) -> PreTrainedModel:
    if name not in task.heads:
        raise ValueError(f"head is {', '.join(task.heads)} or {NEW_HEAD}, not {name}")
    head = task.heads[name].model_class
    fields: dict[str, Any] = label_maps(labels) | checked_overrides(arguments, head.config_class)
    is_beside_bilstm = head is CharacterEncoderForTokenClassification
    reader = AutoConfig.from_pretrained(tokenizer.name_or_path) if is_beside_bilstm else head.config_class()
    if morphemes := _morpheme_field(arguments, reader, task):
        fields["characters"] = BiLSTMCRFModel.from_pretrained(tokenizer.name_or_path, **morphemes)
        _reset_morphemes(fields["characters"])
    encoder = model_path(arguments.model_name_or_path)  # type: ignore[arg-type]  # a head needs one
    return head.from_encoder(encoder, tokenizer, trust_remote_code=arguments.trust_remote_code, **fields)


def _pretrained(arguments: ModelArguments, labels: Sequence[str], task: Task) -> PreTrainedModel:
    name, trust = arguments.model_name_or_path, arguments.trust_remote_code
    source = model_path(name)  # type: ignore[arg-type]  # see `load_model`
    config = AutoConfig.from_pretrained(source, trust_remote_code=trust)
    morphemes = _morpheme_field(arguments, config, task)
    fields = checked_overrides(arguments, type(config)) | morphemes
    if hasattr(config, "temperature"):
        fields.setdefault("temperature", 1.0)  # that of the model fits the weights before the training
    if task is not TAGGING and getattr(config, "read_morphemes", False):
        fields["read_morphemes"] = False  # the pipeline of a text classifier does not compute them
    own, new = list(config.id2label.values()), []
    # The labels of pretraining, or of a tagger whose head has been taken off, have no meaning here.
    is_body = bool(config.architectures) and not any(each.serves(config.to_dict()) for each in PREDICTORS)
    if arguments.head == NEW_HEAD or is_body or all(label.startswith("LABEL_") for label in own):
        if getattr(arguments, "distill_from_self", 0):
            raise ValueError(f"{name} has no entity types to hold on to: leave out distill_from_self")
        fields |= label_maps(labels)
    elif missing := sorted(set(labels) - set(own)):
        new = labels_to_add(own, labels) if task is TAGGING and "O" in own else []
        if not set(missing) <= set(new):
            raise ValueError(
                f"{name} has no label {', '.join(missing)} (it has {', '.join(own)}): train on data with its labels, "
                f"or give it a new head (--head {NEW_HEAD})"
            )
    auto_class: Any = task.predictor.auto_class
    if arguments.head == NEW_HEAD:
        if hasattr(config, "encoder_config"):
            raise ValueError(
                f"{name} cannot get a new head: start from its encoder, with --head {' or '.join(task.heads)}"
            )
        model = _on_body(source, auto_class, trust, fields)
    else:
        model = auto_class.from_pretrained(source, trust_remote_code=trust, **fields)
    if morphemes:
        _reset_morphemes(model.bilstm)
    if new:
        model = with_labels(model, new)
        types = (", ".join(entity_types(part)) for part in (own, new))
        logger.info("%s keeps the entity types %s and gets the new ones %s", name, *types)
    return model


def _on_body(source: str, auto_class: Any, trust: bool, fields: dict[str, Any]) -> PreTrainedModel:
    """Return a model of `auto_class` with a new head on the body of a trained one, which may have had another head."""
    body = AutoModel.from_pretrained(source, trust_remote_code=trust, **fields)
    model = auto_class.from_config(body.config, trust_remote_code=trust)
    own = model.base_model.state_dict()  # BERT, for example, has a pooler only without a head for tokens
    model.base_model.load_state_dict({name: value for name, value in body.state_dict().items() if name in own})
    return model


def _reset_morphemes(bilstm: BiLSTMCRFModel) -> None:
    """Let a pretrained BiLSTM read morphemes, with zero embeddings: training starts from what it did before."""
    torch.nn.init.zeros_(bilstm.features.morpheme_embeddings.weight)
    bilstm.features.set_clusters(clusters_by_hash())


def _morpheme_field(arguments: ModelArguments, config: PreTrainedConfig, task: Task) -> dict[str, Any]:
    """Return the field of the configuration that makes a model read morphemes, if it has to be set."""
    if not arguments.read_morphemes:
        return {}
    if config.model_type != BiLSTMCRFConfig.model_type or task is not TAGGING:
        raise ValueError(
            f"read_morphemes is for BiLSTM-CRF taggers, not for {config.model_type} or text classifiers: give "
            "--read_morphemes false"
        )
    kiwi()  # raises an error that says how to install Kiwi
    return {} if config.read_morphemes else {"read_morphemes": True}


@contextmanager
def checked_values() -> Iterator[None]:
    """Raise ValueError within the context if a field of `config_overrides` cannot have its value."""
    try:
        yield
    except StrictDataclassError as error:
        raise ValueError(f"config_overrides: {' '.join(str(error).split())}") from None


def checked_overrides(arguments: ModelArguments, config_class: type[PreTrainedConfig]) -> dict[str, Any]:
    """Return `config_overrides`; raise ValueError if a field is unknown to `config_class`, or has its own argument."""
    overrides = dict(arguments.config_overrides or {})  # type: ignore[arg-type]  # __post_init__ has parsed a string
    for name, remedy in NOT_OVERRIDDEN.items():
        if name in overrides:
            raise ValueError(f"config_overrides: {name} cannot be set there: {remedy}")
    if unknown := sorted(set(overrides) - set(config_class.__dataclass_fields__)):
        raise ValueError(f"config_overrides: {config_class.__name__} has no field {', '.join(unknown)}")
    return overrides
