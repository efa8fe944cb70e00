"""What the BiLSTM reads of a token: its embedding, hashed n-grams of its neighbours, the jamo of its syllable.

All of it is derived from `input_ids`, so that a plain tokenizer.json and the stock pipelines suffice; only morphemes,
which a model may read as well, are not. A further input is one more module in [`InputFeatures`]. This file is copied
into exported model repositories.
"""

import torch
from torch import Tensor, nn
from transformers import PreTrainedTokenizerBase
from transformers import initialization as init

from .configuration_bilstm_crf import BiLSTMCRFConfig
from .morphemes import CLUSTERS, KNOWN, PARTS_OF_SPEECH

CHARACTER, WORD_START, INITIAL, VOWEL, FINAL = range(5)
"""Columns of the token table: what one token id is."""

JAMO_COUNTS = (19, 21, 28)
"""Initials, vowels and finals (no final is one of them) of a Hangul syllable; Unicode standard, section 3.12."""


def token_table(tokenizer: PreTrainedTokenizerBase) -> Tensor:
    """What each token id stands for, (vocabulary, 5) integers.

    - CHARACTER: the id of the same piece at the beginning of a word, where there is one, else the id itself; so `##가`
      and `가` share n-grams.
    - WORD_START: 1 if the piece begins a word. Known for WordPiece (`##`) and SentencePiece (`▁`) vocabularies.
    - INITIAL, VOWEL, FINAL: the jamo of a piece that is one Hangul syllable, numbered from 1 on: initials, then vowels,
      then finals. 0 for anything else.
    """
    vocabulary = tokenizer.get_vocab()
    specials = set(tokenizer.all_special_tokens)
    wordpiece = any(token.startswith("##") for token in vocabulary)
    table = torch.zeros(max(vocabulary.values()) + 1, 5, dtype=torch.long)
    table[:, CHARACTER] = torch.arange(len(table))
    for token, i in vocabulary.items():
        if token in specials:
            continue
        piece = token.removeprefix("##") if wordpiece else token.removeprefix("▁")
        initial_form = piece if wordpiece else "▁" + piece
        table[i, CHARACTER] = vocabulary.get(initial_form, i)
        table[i, WORD_START] = token == initial_form
        if len(piece) == 1 and "가" <= piece <= "힣":
            initial, rest = divmod(ord(piece) - ord("가"), JAMO_COUNTS[1] * JAMO_COUNTS[2])
            vowel, final = divmod(rest, JAMO_COUNTS[2])
            table[i, INITIAL:] = 1 + torch.tensor([initial, JAMO_COUNTS[0] + vowel, sum(JAMO_COUNTS[:2]) + final])
    return table


def hash_ngrams(characters: Tensor, windows: list[list[int]], buckets: int) -> Tensor:
    """The bucket of each window around each token.

    Args:
        characters: (T, B), 0 where there is no token.

    Returns:
        (T, B, windows). Two windows over the same characters have buckets of their own. The hash is Fowler, Noll and
        Vo's (FNV-1a) over characters instead of bytes, with the upper bits folded in; it is part of a trained model.
    """
    reach = max(max(-first, last, 0) for first, last in windows)
    padded = nn.functional.pad(characters, (0, 0, reach, reach))
    hashes = []
    for seed, (first, last) in enumerate(windows):
        value = torch.full_like(characters, 0x811C9DC5 + seed)
        for offset in range(first, last + 1):
            value = ((value ^ padded[reach + offset : reach + offset + len(characters)]) * 0x01000193) & 0xFFFFFFFF
        hashes.append((value ^ (value >> 15)) % buckets)
    return torch.stack(hashes, -1)


def direction_windows(config: BiLSTMCRFConfig) -> tuple[list[int], list[int]]:
    """Which of the windows `config.ngrams` the forward and which the backward direction of the first layer reads.

    Those that look at most one token ahead. Longer ones say nothing that the direction would not meet, while
    pretraining has to guess a token from states around it that have not read it.
    """
    windows = list(enumerate(config.ngrams)) if config.ngram_embedding_size else []
    return [i for i, (_, last) in windows if last <= 1], [i for i, (first, _) in windows if first >= -1]


class InputFeatures(nn.Module):
    """The inputs of the two directions of the first BiLSTM layer, made of (T, B) token ids.

    Attributes:
        widths: of the two inputs.
    """

    def __init__(self, config: BiLSTMCRFConfig) -> None:
        super().__init__()
        self.config = config
        self.word_embeddings = nn.Embedding(config.vocab_size, config.embedding_size)
        self.windows = direction_windows(config)
        width = config.embedding_size
        if any(self.windows):
            self.ngram_embeddings = nn.Embedding(config.ngram_buckets, config.ngram_embedding_size)
        if config.jamo_embedding_size:
            self.jamo_embeddings = nn.Embedding(1 + sum(JAMO_COUNTS), config.jamo_embedding_size)
            width += len(JAMO_COUNTS) * config.jamo_embedding_size
        self.widths = [width + len(of_direction) * config.ngram_embedding_size for of_direction in self.windows]
        if config.morphemes:
            tags = CLUSTERS + PARTS_OF_SPEECH
            self.morpheme_embeddings = nn.Embedding(1 + 2 * tags, config.embedding_size)
            self.register_buffer("morpheme_table", torch.empty(KNOWN, dtype=torch.long))
        self.register_buffer("token_table", torch.empty(config.vocab_size, 5, dtype=torch.long))
        self.reset_table()

    def reset_table(self, table: Tensor | None = None) -> None:
        """Describe the vocabulary by `table` (see [`token_table`]); by default each token as a character of its own."""
        if table is None:
            table = torch.zeros_like(self.token_table)
            table[:, CHARACTER] = torch.arange(len(table), device=table.device)
        init.copy_(self.token_table, table)

    def resize_table(self, vocab_size: int) -> None:
        """Keep what is known of the first `vocab_size` ids; further ones are characters of their own."""
        known = self.token_table[:vocab_size]
        self.token_table = known.new_empty(vocab_size, known.shape[1])
        self.reset_table()
        self.token_table[: len(known)] = known

    def set_morphemes(self, table: Tensor) -> None:
        """Describe Kiwi's morphemes by the `table` of `morphology.morpheme_table`."""
        self.morpheme_table.copy_(table)

    def embed_morphemes(self, morpheme_ids: Tensor) -> Tensor:
        """The embeddings (T, B, width) of the tags of morphemes; in training those of some sentences are forgotten."""
        if self.training:
            kept = torch.rand(morpheme_ids.shape[1], device=morpheme_ids.device) >= self.config.morpheme_dropout
            morpheme_ids = morpheme_ids * kept
        known = (morpheme_ids - 1).clamp(min=0)
        rows = 1 + 2 * self.morpheme_table[known // 2] + known % 2
        return self.morpheme_embeddings(rows * (morpheme_ids > 0))

    def forward(self, input_ids: Tensor, inside: Tensor, morpheme_ids: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """The input of the forward and that of the backward direction, (T, B, width) each, or one tensor twice.

        Args:
            inside: (T, B), which of the ids belong to the sequences; the result elsewhere is of no account.
            morpheme_ids: (T, B), see `morphemes.morpheme_ids`; None if they are not known.
        """
        words = self.word_embeddings(input_ids)
        if self.config.morphemes:
            words = words + self.embed_morphemes(torch.zeros_like(input_ids) if morpheme_ids is None else morpheme_ids)
        tokens = self.token_table[input_ids]  # (T, B, 5)
        jamo = []
        if self.config.jamo_embedding_size:
            jamo.append(self.jamo_embeddings(tokens[..., INITIAL : FINAL + 1]).flatten(-2))
        if not any(self.windows):
            both = torch.cat([words, *jamo], -1)
            return both, both
        characters = (tokens[..., CHARACTER] + 1) * inside
        buckets = hash_ngrams(characters, self.config.ngrams, self.config.ngram_buckets)
        ngrams = self.ngram_embeddings(buckets)  # (T, B, windows, width)
        if self.training and self.config.ngram_dropout:
            kept = torch.rand(buckets.shape, device=buckets.device) >= self.config.ngram_dropout
            ngrams = ngrams * kept[..., None]

        def read(windows: list[int]) -> Tensor:
            # Not `ngrams[..., windows, :]`: the host would copy that list of indices to the device, and wait.
            return torch.cat([words, *(ngrams[..., i, :] for i in windows), *jamo], -1)

        first, second = self.windows
        ahead = read(first)
        return ahead, ahead if first == second else read(second)
