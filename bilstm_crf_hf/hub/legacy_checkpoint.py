"""Conversion of the tutorial's checkpoints, `config.json` and a pickled state dict, to models of this package."""

import os
import re
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import snapshot_download
from torch import Tensor
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from ..configuration_bilstm_crf import BiLSTMCRFConfig
from ..data.rows import check_json, parse_json
from ..evaluation.tasks import label_maps
from ..modeling_bilstm_crf import BiLSTMCRFForTokenClassification, sequence_tokens
from ..utils.files import write_folder_atomically

MODEL_TYPE = "BiLSTM_CRF"
"""The `model_type` in the tutorial's configuration."""

SIZES = {"vocab_size": "vocab_size", "embedding_dim": "embedding_size", "hidden_dim": "hidden_size"}
"""Our names of sizes, by those of the tutorial."""


def convert_checkpoint(
    source: str | os.PathLike, output_dir: str | os.PathLike, tokenizer_name: str | None = None
) -> None:
    """Convert a checkpoint of the tutorial to a folder that `pipeline` and the Auto classes load.

    The folder `output_dir` is written completely or not at all. The model gives the output of the tutorial's class for
    each sentence alone; the LSTM of that class also reads the padding behind a sentence.

    Args:
        source: folder of the checkpoint, or its name on the Hub.
        tokenizer_name: tokenizer on the Hub or in a folder. Default: the one in `source`; without one, the folder only
            contains the model.

    Raises:
        FileExistsError: if `output_dir` is not empty.
        OSError: if there is no `source`, or no such tokenizer.
        ValueError: see [`load_checkpoint`].
    """
    output = Path(output_dir)
    if output.exists() and (not output.is_dir() or any(output.iterdir())):
        raise FileExistsError(f"{output} exists already: name another output folder, or delete it")
    folder = Path(source)
    if not folder.is_dir():
        try:
            folder = Path(snapshot_download(str(source), allow_patterns=["*.json", "*.txt", "*.bin", "*.pth"]))
        except (OSError, ValueError) as error:
            raise OSError(f"{source} is neither a folder nor a model that the Hub provides: {error}") from error
    if tokenizer_name is None and (folder / "tokenizer_config.json").is_file():
        tokenizer_name = str(folder)
    tokenizer = AutoTokenizer.from_pretrained(tokenizer_name, trust_remote_code=False) if tokenizer_name else None
    model = load_checkpoint(folder, tokenizer)
    with write_folder_atomically(output) as unfinished:
        model.save_pretrained(unfinished)
        if tokenizer is not None:
            tokenizer.save_pretrained(unfinished)


def load_checkpoint(folder: Path, tokenizer: PreTrainedTokenizerBase | None = None) -> BiLSTMCRFForTokenClassification:
    """Load a checkpoint of the tutorial, one `*.bin` or `*.pth` beside its `config.json`, in evaluation mode.

    The model ignores the padding of `tokenizer` even in a batch without an attention mask.

    Raises:
        FileNotFoundError: if there is no configuration, no file of weights, or more than one.
        ValueError: if the configuration is not the tutorial's, the weights are not a plain state dict or do not fit the
            configuration, or the tokenizer has ids without an embedding.
    """
    config_file, weights_file = folder / "config.json", _weights_file(folder)
    fields = _read_config(config_file)
    state = _read_state(weights_file)
    if tokenizer is not None and (highest := max(tokenizer.get_vocab().values())) >= fields["vocab_size"]:
        raise ValueError(
            f"{config_file}: vocab_size is {fields['vocab_size']}, but the tokenizer has ids up to {highest}: name the "
            "tokenizer that the model was trained with"
        )
    num_layers = max(1, sum(re.fullmatch(r"lstm\.weight_ih_l\d+", key) is not None for key in state))
    config = BiLSTMCRFConfig(
        **fields,
        num_hidden_layers=num_layers,
        ngrams=[],
        jamo_embedding_size=0,
        locked_dropout=0.0,
        word_dropout=0.0,
        constrained=False,  # the tutorial's CRF has no tag scheme: its best paths may be invalid BIO sequences
        pad_token_id=None if tokenizer is None else sequence_tokens(tokenizer)["pad_token_id"],
        special_token_ids=[],  # its chain runs over all tokens, including [CLS] and [SEP]
    )
    names = tensor_names(num_layers)
    with torch.device("meta"):  # without memory: the configuration may claim any size
        expected = BiLSTMCRFForTokenClassification(config).state_dict()
    _check_tensors(weights_file, state, {key: expected[name].shape for key, name in names.items()})
    model = BiLSTMCRFForTokenClassification(config).eval()
    model.load_state_dict(model.state_dict() | {name: state[key] for key, name in names.items()})
    return model


def tensor_names(num_layers: int) -> dict[str, str]:
    """Return our names of all tensors, by those of the tutorial."""
    names = {
        "word_embeds.weight": "bilstm.features.word_embeddings.weight",
        "hidden2tag.weight": "classifier.weight",
        "hidden2tag.bias": "classifier.bias",
    }
    names |= {name: name for name in ("crf.start_transitions", "crf.end_transitions", "crf.transitions")}
    for layer in range(num_layers):
        for tensor in ("weight_ih", "weight_hh", "bias_ih", "bias_hh"):
            names[f"lstm.{tensor}_l{layer}"] = f"bilstm.layers.{layer}.forward_lstm.{tensor}_l0"
            names[f"lstm.{tensor}_l{layer}_reverse"] = f"bilstm.layers.{layer}.backward_lstm.{tensor}_l0"
    return names


def _weights_file(folder: Path) -> Path:
    if (folder / "pytorch_model.bin").is_file():
        return folder / "pytorch_model.bin"
    # Trainer saves its arguments in a file with this suffix.
    files = sorted({*folder.glob("*.bin"), *folder.glob("*.pth")} - {folder / "training_args.bin"})
    if len(files) != 1:
        found = ", ".join(file.name for file in files) or "none"
        raise FileNotFoundError(f"{folder}: expected pytorch_model.bin, or one file *.bin or *.pth; found {found}")
    return files[0]


def _read_config(file: Path) -> dict[str, Any]:
    """Return the fields of our configuration for a configuration of the tutorial."""
    try:
        config = parse_json(file.read_text(encoding="utf-8"))
        check_json(config)
    except ValueError as error:
        raise ValueError(f"{file}: not JSON ({error})") from error
    model_type = config.get("model_type") if isinstance(config, dict) else None
    if model_type != MODEL_TYPE:
        raise ValueError(f"{file}: model_type is {model_type}, expected {MODEL_TYPE} as in the tutorial's models")
    for name in SIZES:
        if type(config.get(name)) is not int or not 0 < config[name] < 2**31:
            raise ValueError(f"{file}: {name} is {config.get(name)}, expected a positive integer below 2**31")
    if config["hidden_dim"] % 2:
        raise ValueError(f"{file}: hidden_dim is {config['hidden_dim']}, expected an even number, half per direction")
    tags = config.get("tag_to_ix")
    numbers = list(tags.values()) if isinstance(tags, dict) else []
    if not numbers or any(type(i) is not int for i in numbers) or sorted(numbers) != list(range(len(numbers))):
        raise ValueError(f"{file}: tag_to_ix is {tags}, expected a mapping of tags to 0, 1, 2 and so on, each once")
    return {own: config[name] for name, own in SIZES.items()} | label_maps(sorted(tags, key=tags.get))


def _read_state(file: Path) -> dict[str, Tensor]:
    try:
        state = torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:  # a damaged pickle may raise anything
        raise ValueError(
            f"{file}: the file is damaged, or contains more than tensors, which could run code: save the model again "
            "with torch.save(model.state_dict(), ...)"
        ) from error
    if not isinstance(state, dict):
        raise ValueError(
            f"{file}: contains a {type(state).__name__}: save the model with torch.save(model.state_dict(), ...)"
        )
    for key, value in state.items():
        if not isinstance(value, Tensor):
            raise ValueError(f"{file}: {key} is a {type(value).__name__}, not a tensor: expected a plain state dict")
        if value.layout != torch.strided or value.nbytes > value.untyped_storage().nbytes():
            raise ValueError(f"{file}: {key} claims {value.numel():,} elements, which the file does not hold")
        if not value.isfinite().all():
            raise ValueError(f"{file}: {key} has elements that are NaN or infinite: convert an earlier checkpoint")
    return state


def _check_tensors(file: Path, state: dict[str, Tensor], shapes: dict[str, torch.Size]) -> None:
    """Raise ValueError if the names or shapes of a state dict are not those that the configuration requires."""
    if state.keys() != shapes.keys():
        differences = (shapes.keys() - state.keys(), state.keys() - shapes.keys())
        missing, unknown = (", ".join(sorted(keys)) or "none" for keys in differences)
        raise ValueError(
            f"{file}: missing keys: {missing}; unknown keys: {unknown}. Expected the state dict of the tutorial's "
            "class with a bidirectional LSTM"
        )
    for key, shape in shapes.items():
        if state[key].shape != shape:
            raise ValueError(
                f"{file}: {key} has the shape {tuple(state[key].shape)}, but {tuple(shape)} by the sizes and tags in "
                "config.json: the two files are not of the same model"
            )
