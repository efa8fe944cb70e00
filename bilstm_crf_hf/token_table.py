"""Properties of tokens that follow from the vocabulary. This file is copied into exported model repositories."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from transformers import PreTrainedTokenizerBase
from transformers import initialization as init

from .configuration_bilstm_crf import BiLSTMCRFConfig

TOKEN_COLUMNS = ("character", "word_start", "initial", "vowel", "final", "form", "shape")
"""All columns of the table of tokens that this version knows, see [`token_table`]."""

JAMO_COUNTS = (19, 21, 28)
"""Numbers of initials, vowels and finals ("no final" is one) of Hangul syllables; Unicode standard, section 3.12."""

CAPITAL, FURTHER_CAPITAL, LETTER, DIGIT, SIGN = (2**i for i in range(5))
"""Flags of the shape of a token: it begins with a capital, or has further ones, other letters, digits, or signs."""

NUM_FLAGS = 5


def token_table(tokenizer: PreTrainedTokenizerBase, columns: Sequence[str] = TOKEN_COLUMNS) -> Tensor:
    """Describe each token id by integers, (vocabulary, columns).

    - `character`: the id of the same piece at the beginning of a word, or the id itself if there is none, so that
      `##가` and `가` share n-grams.
    - `word_start`: 1 if the piece begins a word; known for WordPiece (`##`) and SentencePiece (`▁`) vocabularies. The
      unknown token of WordPiece stands for a whole word.
    - `initial`, `vowel`, `final`: the jamo of a piece that is one Hangul syllable, numbered from 1: initials, then
      vowels, then finals. 0 for any other piece.
    - `form`: the id of the piece in small letters, with each digit as 0, or `character` if there is none.
    - `shape`: the sum of the flags of the piece, such as `CAPITAL`.
    """
    vocabulary = tokenizer.get_vocab()
    specials = set(tokenizer.all_special_tokens)
    wordpiece = any(token.startswith("##") for token in vocabulary)
    size = max(vocabulary.values()) + 1
    table = {name: [0] * size for name in TOKEN_COLUMNS} | {name: list(range(size)) for name in ("character", "form")}
    for token, i in vocabulary.items():
        if token in specials:
            table["word_start"][i] = int(wordpiece and token == tokenizer.unk_token)
            continue
        piece = token.removeprefix("##") if wordpiece else token.removeprefix("▁")
        prefix = "" if wordpiece else "▁"
        table["character"][i] = vocabulary.get(prefix + piece, i)
        table["word_start"][i] = int(token == prefix + piece)
        table["form"][i] = vocabulary.get(prefix + form_of(piece), table["character"][i])
        table["shape"][i] = shape_of(piece)
        if len(piece) == 1 and "가" <= piece <= "힣":
            initial, rest = divmod(ord(piece) - ord("가"), JAMO_COUNTS[1] * JAMO_COUNTS[2])
            vowel, final = divmod(rest, JAMO_COUNTS[2])
            table["initial"][i] = 1 + initial
            table["vowel"][i] = 1 + JAMO_COUNTS[0] + vowel
            table["final"][i] = 1 + sum(JAMO_COUNTS[:2]) + final
    return torch.tensor([table[name] for name in columns]).T.contiguous()


def form_of(piece: str) -> str:
    """Return a piece of text in small letters, with each digit as 0."""
    return "".join("0" if c.isdecimal() else c for c in piece.lower())


def shape_of(piece: str) -> int:
    """Return the sum of the flags of a piece of text."""
    flags = 0
    for i, c in enumerate(piece):
        if c.isupper():
            flags |= FURTHER_CAPITAL if i else CAPITAL
        else:
            flags |= LETTER if c.isalpha() else DIGIT if c.isnumeric() else SIGN
    return flags


class TokenEmbeddings(nn.Module):
    """The embeddings of tokens and the table of their properties: the base of the inputs of a BiLSTM."""

    token_table: Tensor

    def __init__(self, config: BiLSTMCRFConfig) -> None:
        super().__init__()
        self.config = config
        self.word_embeddings = nn.Embedding(config.vocab_size, config.embedding_size)
        self.columns = {name: i for i, name in enumerate(config.token_columns)}
        self.register_buffer("token_table", torch.empty(config.vocab_size, len(self.columns), dtype=torch.long))
        self.reset_table()

    def reset_table(self, table: Tensor | None = None) -> None:
        """Set the description of the vocabulary, see [`token_table`]. Default: each id is a different word."""
        if table is None:
            table = torch.zeros_like(self.token_table)
            if "word_start" in self.columns:
                table[:, self.columns["word_start"]] = 1
            for name in {"character", "form"} & self.columns.keys():
                table[:, self.columns[name]] = torch.arange(len(table), device=table.device)
        init.copy_(self.token_table, table)

    def initialize(self) -> None:
        """Set what is not random in a new model."""
        self.reset_table()

    def resize_table(self, vocab_size: int) -> None:
        """Keep the description of the first `vocab_size` ids; each further id is a different word."""
        known = self.token_table[:vocab_size]
        self.token_table = known.new_empty(vocab_size, known.shape[1])
        self.reset_table()
        self.token_table[: len(known)] = known
