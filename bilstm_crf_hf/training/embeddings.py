"""Pretrained vectors for the embeddings of a new model, from an encoder or from a file (see `data.vectors`)."""

import logging
import os
from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import chain
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from transformers import AutoModel, AutoTokenizer, PreTrainedTokenizerBase

from ..data.tokenization import UNKNOWN
from ..data.vectors import Vectors, file_vectors
from ..models import model_path
from ..token_table import form_of, token_table
from ..words import hash_tokens

logger = logging.getLogger(__name__)

CONTINUATION, WORD_START = "##", "▁"
"""Prefixes of pieces inside a word (WordPiece) and at its beginning (SentencePiece)."""


def encoder_vectors(encoder: str, trust_remote_code: bool = False) -> Vectors:
    """Load the input embeddings of an encoder on the Hub or in a folder."""
    encoder, options = model_path(encoder), {"trust_remote_code": trust_remote_code}
    vocabulary = AutoTokenizer.from_pretrained(encoder, **options).get_vocab()
    rows = AutoModel.from_pretrained(encoder, **options).get_input_embeddings().weight.detach()
    return Vectors(rows.shape[1], lambda token: rows[vocabulary[token]] if token in vocabulary else None)


def copy_vectors(embeddings: nn.Embedding, tokenizer: PreTrainedTokenizerBase, vectors: Vectors) -> int:
    """Copy the vectors of the tokens of a tokenizer into the rows of an embedding table.

    A token is looked up as it is, then without the prefix that marks its place in a word. All vectors are scaled by one
    factor, so that the mean square of their elements is 1, which the initial weights of the LSTM assume (Glorot and
    Bengio, 2010). Such vectors are also much longer than a step of training, so that the first epoch does not erase
    them: on KLUE-NER the vectors of an encoder gain 0.020 F1 over random ones, and 0.006 with unit length.

    Returns:
        The number of tokens that have a vector.

    Raises:
        ValueError: if the vectors are not as wide as the embeddings.
    """
    if vectors.width != embeddings.embedding_dim:
        raise ValueError(
            f"the vectors have {vectors.width} elements, the embeddings {embeddings.embedding_dim}: leave "
            "embedding_size out of config_overrides"
        )
    found: dict[int, Tensor] = {}
    for token, i in tokenizer.get_vocab().items():
        for form in (token, token.removeprefix(CONTINUATION).removeprefix(WORD_START)):
            if form and (vector := vectors.lookup(form)) is not None:
                found[i] = vector
                break
    if found:
        rows = torch.stack(list(found.values())).float()
        with torch.no_grad():
            embeddings.weight[list(found)] = rows / rows.square().mean().sqrt()
    return len(found)


class WordVectors(NamedTuple):
    """Vectors of words for the table of a tagger of words: hashes in ascending order, (N,), and vectors, (N, width)."""

    hashes: Tensor
    vectors: Tensor


def word_vectors(
    path: str | os.PathLike, tokenizer: PreTrainedTokenizerBase, texts: Iterable[str], others: int
) -> WordVectors:
    """Read the vectors of the words of `texts` and of `others` further words from a file.

    A word without a vector has that of its form: small letters, digits as 0. All vectors are scaled as in
    [`copy_vectors`]. Of words that the tokenizer reads as the same characters, the first one in the file counts. Words
    with characters that the tokenizer does not know, and those that it separates into several words, are left out.

    Raises:
        FileNotFoundError, ValueError: see [`file_vectors`]; ValueError also if no word has a vector.
    """
    backend = tokenizer.backend_tokenizer
    normalized = map(backend.normalizer.normalize_str, texts) if backend.normalizer else texts
    pieces = (word for text in normalized for word, _ in backend.pre_tokenizer.pre_tokenize_str(text))
    counts = Counter(word.removeprefix(WORD_START) for word in pieces)
    wanted = set(counts) | set(map(form_of, counts))
    read = file_vectors(path, wanted, others)
    held = set(read.words)
    words = [*read.words, *sorted(word for word in wanted - held if read.lookup(word) is not None)]
    hashes = word_hashes(tokenizer, words)
    _, places = np.unique(hashes.numpy(), return_index=True)
    kept = torch.from_numpy(places)[hashes[places] >= 0]
    if not len(kept):
        raise ValueError(f"{path}: no vector of a word that consists of known characters: is it of another language?")
    known = {words[i]: read.lookup(words[i]) for i in kept.tolist()}
    rows = torch.stack([row for row in known.values() if row is not None]).float()  # none of them is None
    found = [word for word in counts if word in known or form_of(word) in known]
    logger.info(
        "vectors for %.1f %% of the words of the training texts (%.1f %% of their occurrences), and %d in all",
        100 * len(found) / len(counts),
        100 * sum(counts[word] for word in found) / counts.total(),
        len(kept),
    )
    return WordVectors(hashes[kept], rows / rows.square().mean().sqrt())


def word_hashes(tokenizer: PreTrainedTokenizerBase, words: Sequence[str]) -> Tensor:
    """Return the hash by which `WordFeatures` looks up each word, (N,); -1 if [`word_vectors`] leaves it out."""
    table = token_table(tokenizer, ["character", "word_start"])
    rows = tokenizer(list(words), add_special_tokens=False, verbose=False)["input_ids"]
    lengths = torch.tensor([len(row) for row in rows])
    owners = torch.arange(len(rows)).repeat_interleave(lengths)
    ids = torch.tensor(list(chain.from_iterable(rows)), dtype=torch.long)
    places = torch.arange(len(ids)) - (lengths.cumsum(0) - lengths)[owners]
    hashes = torch.zeros(len(rows), dtype=torch.long).index_add(0, owners, hash_tokens(table[ids, 0], places))
    vocabulary = tokenizer.get_vocab()
    unknown = [
        vocabulary[each] for each in (tokenizer.unk_token, UNKNOWN, f"{CONTINUATION}{UNKNOWN}") if each in vocabulary
    ]
    broken = torch.isin(ids, torch.tensor(unknown)) | ((table[ids, 1] == 1) != (places == 0))
    return hashes.masked_fill((lengths == 0).index_fill(0, owners[broken], True), -1)
