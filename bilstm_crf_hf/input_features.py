"""Input features of the BiLSTM: token embeddings, hashed n-grams of neighbouring tokens, the jamo of syllables.

They are derived from `input_ids`, so that a plain tokenizer.json and the stock pipelines suffice; inputs that follow
from the text come as further arguments. This file is copied into exported model repositories.
"""

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from transformers import initialization as init

from .configuration_bilstm_crf import BiLSTMCRFConfig
from .morphemes import NUM_CLUSTERS, NUM_NOUNS, NUM_PARTS_OF_SPEECH
from .sequences import Sequences
from .token_table import JAMO_COUNTS, TokenEmbeddings


def hash_ngrams(characters: Tensor, windows: list[list[int]], buckets: int) -> Tensor:
    """Return the bucket of each window around each token, (T, B, windows).

    Two windows over the same `characters`, (T, B) with 0 where there is no token, have different buckets. The hash is
    that of Fowler, Noll and Vo (FNV-1a) over characters instead of bytes, with the upper bits folded in; trained models
    depend on it.
    """
    reach = max(max(-first, last, 0) for first, last in windows)
    padded = nn.functional.pad(characters, (0, 0, reach, reach))
    hashes = []
    for seed, (first, last) in enumerate(windows):
        value = torch.full_like(characters, 0x811C9DC5 + seed)
        for offset in range(first, last + 1):
            value = ((value ^ padded[reach + offset :][: characters.shape[0]]) * 0x01000193) & 0xFFFFFFFF
        hashes.append((value ^ (value >> 15)) % buckets)
    return torch.stack(hashes, -1)


def direction_windows(config: BiLSTMCRFConfig) -> tuple[list[int], list[int]]:
    """Return the indices of the windows `config.ngrams` that the forward and the backward direction read.

    A direction of the first layer reads the windows that look at most one token ahead. It meets the tokens of longer
    ones anyway, while pretraining has to predict a token from neighbouring states that have not read it.
    """
    windows = list(enumerate(config.ngrams)) if config.ngram_embedding_size else []
    return [i for i, (_, last) in windows if last <= 1], [i for i, (first, _) in windows if first >= -1]


def direction_widths(config: BiLSTMCRFConfig) -> tuple[int, int]:
    """Return the sizes of the inputs of the forward and the backward direction of the first layer."""
    width = config.embedding_size + len(JAMO_COUNTS) * config.jamo_embedding_size
    first, second = (width + len(windows) * config.ngram_embedding_size for windows in direction_windows(config))
    return first, second


class InputFeatures(TokenEmbeddings):
    """The inputs of the two directions of the first BiLSTM layer, whose sizes are `widths`, from (B, S) token ids."""

    noun_hashes: Tensor  # in ascending order; -1 in empty rows, of which there is one at least
    noun_clusters: Tensor

    def __init__(self, config: BiLSTMCRFConfig) -> None:
        super().__init__(config)
        self.windows = direction_windows(config)
        if any(self.windows):
            self.ngram_embeddings = nn.Embedding(config.ngram_buckets, config.ngram_embedding_size)
        if config.jamo_embedding_size:
            self.jamo_embeddings = nn.Embedding(1 + sum(JAMO_COUNTS), config.jamo_embedding_size)
        self.widths = direction_widths(config)
        if config.read_morphemes:
            tags = NUM_CLUSTERS + NUM_PARTS_OF_SPEECH
            self.morpheme_embeddings = nn.Embedding(1 + 2 * tags, config.embedding_size)
            self.register_buffer("noun_hashes", torch.full((NUM_NOUNS,), -1, dtype=torch.int32))
            self.register_buffer("noun_clusters", torch.zeros(NUM_NOUNS, dtype=torch.uint8))

    def set_clusters(self, clusters: Mapping[int, int]) -> None:
        """Set the clusters of nouns by their hashes, see `morphemes.morpheme_hash`: less than `NUM_NOUNS` nouns."""
        rows = torch.tensor([(-1, 0)] * (NUM_NOUNS - len(clusters)) + sorted(clusters.items()))
        self.noun_hashes.copy_(rows[:, 0])
        self.noun_clusters.copy_(rows[:, 1])

    def morpheme_rows(self, morpheme_ids: Tensor) -> Tensor:
        """Return the rows of the embeddings: 0 without a morpheme, else 1 + 2 * tag, plus 1 within the morpheme.

        Tags are clusters, then parts of speech, which morphemes have that are not in the table.
        """
        hashes, parts = morpheme_ids // (2 * NUM_PARTS_OF_SPEECH), morpheme_ids // 2 % NUM_PARTS_OF_SPEECH
        nearest = torch.searchsorted(self.noun_hashes, hashes.int().contiguous(), right=True) - 1
        is_known = self.noun_hashes[nearest] == hashes
        tags = torch.where(is_known, self.noun_clusters[nearest].long(), NUM_CLUSTERS + parts)
        return (1 + 2 * tags + morpheme_ids % 2) * (morpheme_ids > 0)

    def embed_morphemes(self, morpheme_ids: Tensor) -> Tensor:
        """Embed the tags of morphemes, (T, B) to (T, B, width); in training those of some sentences are dropped."""
        if self.training:
            kept = torch.rand(morpheme_ids.shape[1], device=morpheme_ids.device) >= self.config.morpheme_dropout
            morpheme_ids = morpheme_ids * kept
        return self.morpheme_embeddings(self.morpheme_rows(morpheme_ids))

    def initialize(self) -> None:
        """Set what is not random in a new model."""
        super().initialize()
        if self.config.read_morphemes:
            init.constant_(self.noun_hashes, -1)
            init.zeros_(self.noun_clusters)

    def units(self, tokens: Sequences, input_ids: Tensor) -> Sequences:
        """Return the sequences of the units that the BiLSTM reads: the tokens."""
        return tokens

    def forward(self, input_ids: Tensor, sequences: Sequences, **text_inputs: Tensor | None) -> tuple[Tensor, Tensor]:
        """Return the inputs of the forward and the backward direction, (T, B, width) each, or one tensor twice.

        The ids are (B, S). What is behind the end of a sequence does not matter. `text_inputs`, (B, S) each, are those
        of `processing_bilstm_crf.TEXT_INPUTS`; unknown ones are None or left out.
        """
        input_ids = sequences.pack(input_ids)
        words = self.word_embeddings(input_ids)
        if self.config.read_morphemes:
            ids = text_inputs.get("morpheme_ids")
            words = words + self.embed_morphemes(torch.zeros_like(input_ids) if ids is None else sequences.pack(ids))
        tokens = self.token_table[input_ids]  # (T, B, columns)
        jamo = []
        if self.config.jamo_embedding_size:
            initial, final = self.columns["initial"], self.columns["final"]
            jamo.append(self.jamo_embeddings(tokens[..., initial : final + 1]).flatten(-2))
        if not any(self.windows):
            both = torch.cat([words, *jamo], -1)
            return both, both
        characters = (tokens[..., self.columns["character"]] + 1) * sequences.inside
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
