"""Turns checkpoints of the tutorial's class into models of this package.

The tutorial that this package grew from publishes `config.json`, of model type BiLSTM_CRF, and a pickled state dict of
`word_embeds`, `lstm`, `hidden2tag` and a `torchcrf.CRF`. Three things set its class apart from ours:

- Its chain runs over all tokens, [CLS] and [SEP] among them. A converted model has `special_token_ids = []`, so that
  its chain does too, and the emissions are the same.
- Its LSTM reads the padding behind a sentence. Ours does not: in a batch, a sentence has what the tutorial's class says
  of it alone.
- Its CRF knows nothing of tag schemes. A converted model has `constrained = False`, and so the same best paths, whether
  they are sequences of BIO or not.
"""

import json
import os
import re
import tempfile
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import snapshot_download
from torch import Tensor
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from ..configuration_bilstm_crf import BiLSTMCRFConfig
from ..evaluation.tasks import label_maps
from ..modeling_bilstm_crf import BiLSTMCRFForTokenClassification, sequence_tokens

MODEL_TYPE = "BiLSTM_CRF"
"""`model_type` in the tutorial's configuration."""

SIZES = {"vocab_size": "vocab_size", "embedding_dim": "embedding_size", "hidden_dim": "hidden_size"}
"""Names of the tutorial's sizes and of ours."""

TENSORS = {
    "word_embeds.weight": "bilstm.features.word_embeddings.weight",
    "hidden2tag.weight": "classifier.weight",
    "hidden2tag.bias": "classifier.bias",
    "crf.start_transitions": "crf.start_transitions",
    "crf.end_transitions": "crf.end_transitions",
    "crf.transitions": "crf.transitions",
}
"""Names of the tutorial's tensors and of ours; [`tensor_names`] adds those of the LSTM."""


def convert_checkpoint(
    source: str | os.PathLike, output_dir: str | os.PathLike, tokenizer_name: str | None = None
) -> None:
    """Writes the tutorial's checkpoint as a folder that `pipeline` and the Auto classes load, with its code.

    The folder is there whole or not at all.

    Args:
        source: folder of the checkpoint, or its name on the Hub.
        output_dir: does not exist yet, or is empty.
        tokenizer_name: tokenizer on the Hub or in a folder. Default: the one in `source`, if there is one; without a
            tokenizer, the folder holds the model alone.

    Raises:
        FileExistsError: there is something in `output_dir`.
        OSError: there is no `source`, or no such tokenizer.
        ValueError: see [`load_checkpoint`].
    """
    output = Path(output_dir)
    if output.exists() and not (output.is_dir() and not any(output.iterdir())):
        raise FileExistsError(f"{output} is there already: name another output folder, or delete it")
    folder = _local_folder(source)
    if tokenizer_name is None and (folder / "tokenizer_config.json").is_file():
        tokenizer_name = str(folder)
    tokenizer = tokenizer_name and AutoTokenizer.from_pretrained(tokenizer_name, trust_remote_code=False)
    model = load_checkpoint(folder, tokenizer)

    output.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{output.name}-", dir=output.parent) as parts:
        whole = Path(parts, output.name)
        model.save_pretrained(whole)
        if tokenizer is not None:
            tokenizer.save_pretrained(whole)
        if output.exists():
            output.rmdir()
        whole.rename(output)


def load_checkpoint(folder: Path, tokenizer: PreTrainedTokenizerBase | None = None) -> BiLSTMCRFForTokenClassification:
    """The model, in evaluation mode, of a folder with the tutorial's `config.json` and `*.bin` or `*.pth`.

    Args:
        folder: where they lie.
        tokenizer: its padding is left out even where a batch comes without an attention mask.

    Raises:
        FileNotFoundError: there is no configuration, no weights, or more than one file of weights.
        ValueError: with file, and field or key: a configuration that is not the tutorial's; weights that are no plain
            state dict, or not of this configuration; a tokenizer with ids that have no embedding.
    """
    config_file, weights_file = folder / "config.json", _weights_file(folder)
    fields = _read_config(config_file)
    state = _read_state(weights_file)
    if tokenizer is not None and (highest := max(tokenizer.get_vocab().values())) >= fields["vocab_size"]:
        raise ValueError(
            f"{config_file}: vocab_size is {fields['vocab_size']}, the tokenizer has ids up to {highest}: name the "
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
        constrained=False,
        pad_token_id=None if tokenizer is None else sequence_tokens(tokenizer)["pad_token_id"],
        special_token_ids=[],
    )
    model = BiLSTMCRFForTokenClassification(config).eval()
    own, names = model.state_dict(), tensor_names(num_layers)
    _check_tensors(weights_file, state, {key: own[name].shape for key, name in names.items()})
    model.load_state_dict(own | {name: state[key] for key, name in names.items()})
    return model


def tensor_names(num_layers: int) -> dict[str, str]:
    """Names of all of the tutorial's tensors, and of ours."""
    names = dict(TENSORS)
    for layer in range(num_layers):
        for tensor in ("weight_ih", "weight_hh", "bias_ih", "bias_hh"):
            names[f"lstm.{tensor}_l{layer}"] = f"bilstm.layers.{layer}.forward_lstm.{tensor}_l0"
            names[f"lstm.{tensor}_l{layer}_reverse"] = f"bilstm.layers.{layer}.backward_lstm.{tensor}_l0"
    return names


def _local_folder(source: str | os.PathLike) -> Path:
    if Path(source).is_dir():
        return Path(source)
    try:
        return Path(snapshot_download(str(source), allow_patterns=["*.json", "*.txt", "*.bin", "*.pth"]))
    except (OSError, ValueError) as error:
        raise OSError(f"{source} is neither a folder nor a model on the Hub that can be had: {error}") from error


def _weights_file(folder: Path) -> Path:
    if (folder / "pytorch_model.bin").is_file():
        return folder / "pytorch_model.bin"
    # Trainer leaves its arguments in a file of this suffix.
    files = sorted({*folder.glob("*.bin"), *folder.glob("*.pth")} - {folder / "training_args.bin"})
    if len(files) != 1:
        found = ", ".join(file.name for file in files) or "none"
        raise FileNotFoundError(f"{folder}: expected pytorch_model.bin, or one file *.bin or *.pth; found {found}")
    return files[0]


def _read_config(file: Path) -> dict[str, Any]:
    """The fields of our configuration that the tutorial's says."""
    try:
        config = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{file}: not JSON ({error})") from error
    model_type = config.get("model_type") if isinstance(config, dict) else None
    if model_type != MODEL_TYPE:
        raise ValueError(f"{file}: model_type is {model_type}, that of the tutorial's models is {MODEL_TYPE}")
    for name in SIZES:
        if type(config.get(name)) is not int or config[name] < 1:
            raise ValueError(f"{file}: {name} is {config.get(name)}, expected a positive integer")
    if config["hidden_dim"] % 2:
        raise ValueError(f"{file}: hidden_dim is {config['hidden_dim']}, expected an even one, half for each direction")
    tags = config.get("tag_to_ix")
    numbers = list(tags.values()) if isinstance(tags, dict) else []
    if not numbers or any(type(i) is not int for i in numbers) or sorted(numbers) != list(range(len(numbers))):
        raise ValueError(f"{file}: tag_to_ix is {tags}, expected a mapping of tags to 0, 1, 2 and so on, each once")
    return {own: config[name] for name, own in SIZES.items()} | label_maps(sorted(tags, key=tags.get))


def _read_state(file: Path) -> dict[str, Tensor]:
    try:
        state = torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:  # there is no end to what a damaged pickle may raise
        raise ValueError(
            f"{file}: damaged, or of more than tensors, which could run code, and so not read: save the model anew by "
            "torch.save(model.state_dict(), ...)"
        ) from error
    if not isinstance(state, dict):
        raise ValueError(f"{file}: a {type(state).__name__}: save the model by torch.save(model.state_dict(), ...)")
    for key, value in state.items():
        if not isinstance(value, Tensor):
            raise ValueError(f"{file}: {key} is a {type(value).__name__}, not a tensor: expected a plain state dict")
    return state


def _check_tensors(file: Path, state: dict[str, Tensor], shapes: dict[str, torch.Size]) -> None:
    """Raises what sets the tensors of `state` apart from those of `shapes`, which follow from the configuration."""
    if state.keys() != shapes.keys():
        missing, unknown = (
            ", ".join(sorted(keys)) or "none" for keys in (shapes.keys() - state, state.keys() - shapes)
        )
        raise ValueError(
            f"{file}: missing keys: {missing}; unknown keys: {unknown}. Expected the state dict of the tutorial's "
            "class, with an LSTM of two directions"
        )
    for key, shape in shapes.items():
        if state[key].shape != shape:
            raise ValueError(
                f"{file}: {key} is {tuple(state[key].shape)}, by the sizes and tags in config.json it would be "
                f"{tuple(shape)}: the two files are not of one model"
            )
