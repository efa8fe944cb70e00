"""Words: the units that a tagger with `unit="words"` labels, and what its BiLSTM reads of each of them.

The input ids stay those of characters, or of other parts of words. Where a word begins, and all that is read of it,
follows from the ids. This file is copied into exported model repositories.

Letters in shapes: those of `modeling_bilstm_crf`, where T counts words; F filters, N known words.
"""

import torch
from torch import Tensor, nn
from transformers import initialization as init

from .alignment import IGNORED
from .configuration_bilstm_crf import BiLSTMCRFConfig
from .crf import LinearChainCRF
from .sequences import Sequences, broadcast
from .token_table import CAPITAL, FURTHER_CAPITAL, NUM_FLAGS, TokenEmbeddings

WINDOW = 3
"""Number of characters that a filter of the convolution reads, as in Ma and Hovy (2016)."""


ALPHABET = 2**12
"""Largest number of characters for which tagging multiplies each once, and not each of its occurrences."""


class WordSequences(Sequences):
    """The words of the sequences in a padded batch: each is a timestep and stands for all of its tokens.

    Args:
        tokens: the sequences of tokens.
        starts: (B, S), true for tokens that begin a word; a token behind one that is not in the sequence, or none, does
            in any case.

    Attributes:
        first: (B, S), the place of the first token of the word of each token.
        inner: (B, S), true for the tokens that continue a word.
    """

    def __init__(self, tokens: Sequences, starts: Tensor) -> None:
        self.tokens = tokens
        follows = nn.functional.pad(tokens.chosen[:, :-1], (1, 0))  # whether the token before is in the sequence
        self.arrange(tokens.chosen & (starts | ~follows))
        self.first = self.order.gather(1, self.ranks)
        self.inner = tokens.chosen & ~self.chosen

    def pool(self, values: Tensor, reduce: str) -> Tensor:
        """Return the sum or the maximum (`amax`) of the values (B, S, D) of the tokens of each word, (T, B, D)."""
        lowest = -torch.inf if values.is_floating_point() else 0  # integers are not negative
        values = values.masked_fill(~self.tokens.chosen[..., None], lowest)
        pooled = values.new_zeros(values.shape[0], self.order.shape[1], values.shape[2])
        pooled = pooled.scatter_reduce(1, broadcast(self.ranks, values), values, reduce, include_self=False)
        return pooled.transpose(0, 1).masked_fill(~self.inside[..., None], 0)

    def labels_of_tokens(self, labels: Tensor, crf: LinearChainCRF) -> Tensor:
        labels = self._spread(labels)
        known = labels.clamp(min=0)
        goes_on = nn.functional.pad(self.inner[:, 1:], (0, 1))  # whether the next token is one of the same word
        known = torch.where(goes_on, crf.opened[known], known)
        known = torch.where(self.inner, crf.continued[known], known)
        return torch.where(self.tokens.chosen & (labels != IGNORED), known, IGNORED)

    def log_marginals_of_tokens(self, log_marginals: Tensor, crf: LinearChainCRF) -> Tensor:
        # Behind the first token, I-X changes places with the most probable label that it continues. Then the best label
        # of each token continues that of the first one, so that the stock pipeline finds whole words.
        spread = self._spread(log_marginals)
        within = crf.continued[crf.opened]  # (K,), the label within a word for each label of a word
        index = within.expand_as(spread)
        largest = spread.scatter_reduce(2, index, spread, "amax").gather(2, index)
        swapped = torch.where(spread == largest, spread.gather(2, index), spread)
        is_within = within == torch.arange(len(within), device=within.device)
        swapped = torch.where(is_within, largest, swapped)
        spread = torch.where(self.inner[..., None], swapped, spread)
        return spread.masked_fill(~self.tokens.chosen[..., None], 0)

    def log_probs_of_tokens(self, log_probs: Tensor) -> Tensor:
        marginal, step, leave = self._spread(log_probs).unbind(-1)
        spread = torch.stack([marginal, step.masked_fill(self.inner, 0), leave], -1)
        return spread.masked_fill(~self.tokens.chosen[..., None], 0)

    def _spread(self, values: Tensor) -> Tensor:
        """Return values (B, S, ...) at the first tokens of words for all of their tokens; others are arbitrary."""
        return values.gather(1, broadcast(self.first, values))


def hash_tokens(tokens: Tensor, places: Tensor) -> Tensor:
    """Return a number below 2^32 for each token id at a place in a word; the sum over a word is the hash of the word.

    The bits are mixed as in the finalizer of MurmurHash3; trained models depend on it. All numbers stay below 2^63.
    """
    value = ((tokens + 1) * 0x9E3779B1 + places * 0x85EBCA77) & 0xFFFFFFFF
    value = ((value ^ (value >> 16)) * 0x2C1B3C6D) & 0xFFFFFFFF
    value = ((value ^ (value >> 13)) * 0x297A2D39) & 0xFFFFFFFF
    return value ^ (value >> 16)


class WordFeatures(TokenEmbeddings):
    """The input of the first BiLSTM layer, whose sizes are `widths`, for the words in (B, S) token ids.

    Of each word, it holds the embeddings of the word and of its form (small letters, digits as 0), both looked up by a
    hash in one table; the embedding of its shape; the largest output of each filter of a convolution over its
    characters (Ma and Hovy, 2016); and a pretrained vector, if there is one for the word or for its form.
    """

    vector_hashes: Tensor  # in ascending order; -1 in empty rows, of which there is one at least

    def __init__(self, config: BiLSTMCRFConfig) -> None:
        super().__init__(config)
        self.hash_embeddings = nn.Embedding(config.word_buckets, config.word_embedding_size)
        self.shape_embeddings = nn.Embedding(2**NUM_FLAGS, config.shape_embedding_size)
        self.dropout = nn.Dropout(config.character_dropout)
        self.filters = nn.Linear(config.embedding_size, WINDOW * config.num_filters, bias=False)
        if config.num_word_vectors:
            self.register_buffer("vector_hashes", torch.full((config.num_word_vectors,), -1))
            self.word_vectors = nn.Embedding(config.num_word_vectors, config.word_vector_size, padding_idx=0)
        self.widths = (word_width(config),) * 2

    def initialize(self) -> None:
        """Set what is not random in a new model."""
        super().initialize()
        init.zeros_(self.hash_embeddings.weight)  # so that words that training has not met add nothing
        if self.config.num_word_vectors:
            init.constant_(self.vector_hashes, -1)
            init.zeros_(self.word_vectors.weight)

    @torch.no_grad()
    def set_vectors(self, hashes: Tensor, vectors: Tensor) -> None:
        """Set the pretrained vectors, (N - 1, width), of words with `hashes`, (N - 1,) in ascending order."""
        self.vector_hashes[1:] = hashes
        self.word_vectors.weight[1:] = vectors

    def units(self, tokens: Sequences, input_ids: Tensor) -> WordSequences:
        """Return the sequences of the units that the BiLSTM reads: the words."""
        return WordSequences(tokens, self.token_table[input_ids, self.columns["word_start"]] == 1)

    def hashes(self, table: Tensor, words: WordSequences) -> Tensor:
        """Return the hashes of words and of their forms, (T, B, 2), from the columns (B, S, C) of their tokens."""
        places = torch.arange(table.shape[1], device=table.device) - words.first
        forms = table[..., [self.columns["character"], self.columns["form"]]]
        return words.pool(hash_tokens(forms, places[..., None]), "sum")

    def shapes(self, table: Tensor, words: WordSequences) -> Tensor:
        """Return the shapes of words, (T, B): the flags of `token_table.shape_of` that any of their tokens has."""
        flags = 2 ** torch.arange(NUM_FLAGS, device=table.device)
        shape = table[..., self.columns["shape"]]
        is_capital = words.inner & (shape & CAPITAL > 0)
        shape = torch.where(is_capital, shape & ~CAPITAL | FURTHER_CAPITAL, shape)
        return words.pool(shape[..., None] & flags, "amax").sum(-1)

    def vector_rows(self, hashes: Tensor) -> Tensor:
        """Return the row of the pretrained vector of each hash, 0 if there is none."""
        at = torch.searchsorted(self.vector_hashes, hashes, right=True) - 1
        return at * (self.vector_hashes[at] == hashes)

    def products(self, input_ids: Tensor) -> Tensor:
        """Return the products of the filters and each character, (B, S, WINDOW * F)."""
        if self.training or self.config.vocab_size > ALPHABET:
            return self.filters(self.dropout(self.word_embeddings(input_ids)))
        return nn.functional.embedding(input_ids, self.filters(self.word_embeddings.weight))

    def convolve(self, input_ids: Tensor, words: WordSequences) -> Tensor:
        """Return the largest output of each filter over the characters of each word, (T, B, F)."""
        behind, at, ahead = self.products(input_ids).chunk(WINDOW, -1)  # (B, S, F) each
        inner = words.inner[:, 1:, None]  # no filter reads beyond the edges of a word
        previous = nn.functional.pad(behind[:, :-1] * inner, (0, 0, 1, 0))
        following = nn.functional.pad(ahead[:, 1:] * inner, (0, 0, 0, 1))
        return words.pool(at + previous + following, "amax")

    def forward(
        self, input_ids: Tensor, sequences: WordSequences, **text_inputs: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """Return the inputs of the forward and the backward direction, one tensor (T, B, width) twice."""
        table = self.token_table[input_ids]
        hashes = self.hashes(table, sequences)  # (T, B, 2)
        embedded = self.hash_embeddings((hashes ^ (hashes >> 15)) % self.config.word_buckets)
        if self.training and self.config.ngram_dropout:  # as if the word had never been seen
            kept = torch.rand(hashes.shape[:2], device=hashes.device) >= self.config.ngram_dropout
            embedded = embedded * kept[..., None, None]
        parts = [embedded.flatten(2), self.shape_embeddings(self.shapes(table, sequences))]
        parts.append(self.convolve(input_ids, sequences))
        if self.config.num_word_vectors:
            word, form = self.vector_rows(hashes).unbind(-1)
            parts.append(self.word_vectors(torch.where(word > 0, word, form)))
        both = torch.cat(parts, -1)
        return both, both


def word_width(config: BiLSTMCRFConfig) -> int:
    """Return the width of the input of the first BiLSTM layer of a model with `unit="words"`."""
    vector = config.word_vector_size if config.num_word_vectors else 0
    return 2 * config.word_embedding_size + config.shape_embedding_size + config.num_filters + vector
