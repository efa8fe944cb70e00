"""Configuration of the BiLSTM-CRF models. This file is copied into exported model repositories."""

from huggingface_hub.dataclasses import strict
from transformers import PreTrainedConfig

UNITS: dict[str, dict[str, int | float]] = {
    "characters": {
        "embedding_size": 128,
        "hidden_size": 384,
        "locked_dropout": 0.5,
        "ngram_dropout": 0.3,
        "word_dropout": 0.1,
    },
    "words": {
        "embedding_size": 50,
        "hidden_size": 256,
        "locked_dropout": 0.4,
        "ngram_dropout": 0.5,
        "word_dropout": 0.05,
    },
}
"""Units that the BiLSTM reads and the CRF labels, with the defaults of fields that differ between them."""

LARGEST_OFFSET, MAX_LABELS, MAX_SPECIAL_TOKENS = 64, 2**16, 2**14
"""Limits of fields that cost time before, or instead of, weights that could be compared with them."""


def check_number_of_labels(fields: dict) -> None:
    """Raise a ValueError for a `num_labels` that names would be made for without end."""
    number = fields.get("num_labels", 1)
    if not (isinstance(number, int) and 0 < number <= MAX_LABELS):
        raise ValueError(f"num_labels must be an integer from 1 to {MAX_LABELS}, got {number!r}")


def check_special_tokens(ids: list[int] | None) -> None:
    """Raise a ValueError for ids that are no ids, or more than tokenizers have: each costs time in each batch."""
    if ids is not None and (len(ids) > MAX_SPECIAL_TOKENS or not all(0 <= each < 2**31 for each in ids)):
        raise ValueError(
            f"special_token_ids must be at most {MAX_SPECIAL_TOKENS} ids of tokens, "
            f"got {len(ids)} from {min(ids)} to {max(ids)}"
        )


def check_temperature(temperature: float) -> None:
    """Raise a ValueError for a temperature that would turn scores into infinity or all of them into zero."""
    if not 1e-6 <= temperature <= 1e6:
        raise ValueError(f"temperature must be a positive and finite number, from 1e-6 to 1e6, got {temperature}")


@strict
class BiLSTMCRFConfig(PreTrainedConfig):
    """Configuration of [`BiLSTMCRFModel`] and of the models with a head on it.

    The defaults are those of the taggers that `bilstm-crf ner` trains; where they differ between characters and words,
    they are in `UNITS`. The model of the tutorial that this
    package grew from has `embedding_size=768, hidden_size=256, ngrams=[], jamo_embedding_size=0, embedding_norm=1` and
    all dropouts 0.

    Args:
        unit: what the BiLSTM reads and the CRF labels: `"characters"`, the tokens of the tokenizer, or `"words"`, each
            of which begins where a token begins a word. The fields from `ngrams` to `jamo_embedding_size` are for
            characters, those from `num_filters` to `word_vector_size` for words.
        ngrams: windows of neighbouring tokens, each `[first, last]` relative to a token, both included: `[-1, 0]` is
            the bigram that ends at the token. Each window's embedding is looked up by a hash of its tokens. A direction
            of the first layer reads those that look at most one token ahead of it. Default: the two bigrams.
        ngram_buckets: number of rows of the n-gram embedding table, which all windows share.
        ngram_embedding_size: 0 leaves n-grams out, as `ngrams=[]` does.
        jamo_embedding_size: width of the embedding of each of a syllable's initial, vowel and final; 0 leaves them out.
        num_filters: number of filters of the convolution over the characters of a word.
        character_dropout: dropout on the embeddings of the characters that the filters read.
        word_embedding_size: width of the embeddings of a word and of its form, which are looked up by a hash.
        word_buckets: number of rows of the table of these embeddings.
        shape_embedding_size: width of the embedding of the shape of a word: capitals, digits, signs.
        num_word_vectors: number of rows of the table of pretrained vectors, the first of which is for words without
            one; 0 if there is no table.
        word_vector_size: width of the pretrained vectors.
        embedding_norm: length on average of a random embedding. With 3, KLUE-NER is learnt a little better than with
            unit length (Ma and Hovy, 2016).
        hidden_size: width of a BiLSTM layer's output, both directions together.
        embedding_dropout: dropout on single elements of the input of the first layer.
        locked_dropout: variational dropout on the input of the first layer and on the output of each: one mask for
            all timesteps of a sequence (Gal and Ghahramani, 2016).
        ngram_dropout: probability that an n-gram's embedding is zeroed in training, as if it had never been seen; with
            words, that those of a word and its form are.
        word_dropout: probability that a token's whole input is zeroed in training.
        read_morphemes: whether a tagger reads the morphemes that Kiwi finds beside its tokens, see
            `morphemes.morpheme_ids`.
        morpheme_dropout: probability that the morphemes of a sentence are unknown in training.
        token_columns: columns of `token_table.token_table`; a saved model keeps those that it was saved with.
            Default: those that the unit needs.
        constrained: whether sequences that the BIO or BIOES scheme of the labels rules out are impossible; false for
            weights that were trained without constraints, such as the tutorial's.
        special_token_ids: ids that take no part in the sequence (`[CLS]`, `[SEP]`, ...).
        temperature: number by which scores are divided in evaluation, so that probabilities are calibrated; above 1,
            they become less extreme. It changes no best path, and nothing in training. `bilstm-crf calibrate` fits it.
    """

    model_type = "bilstm_crf"
    _auto_class = "AutoConfig"  # which makes `save_pretrained` copy the code
    keys_to_ignore_at_inference = ["predictions", "path_log_probs"]  # Trainer's metrics get the logits
    max_position_embeddings = None  # a BiLSTM reads sequences of any length

    unit: str = "characters"
    vocab_size: int = 32000
    embedding_size: int | None = None
    ngrams: list[list[int]] | None = None
    ngram_buckets: int = 131072
    ngram_embedding_size: int = 64
    jamo_embedding_size: int = 16
    num_filters: int = 100
    character_dropout: float = 0.3
    word_embedding_size: int = 50
    word_buckets: int = 131072
    shape_embedding_size: int = 10
    num_word_vectors: int = 0
    word_vector_size: int = 0
    embedding_norm: float = 3.0
    hidden_size: int | None = None
    num_hidden_layers: int = 1
    embedding_dropout: float = 0.0
    locked_dropout: float | None = None
    ngram_dropout: float | None = None
    word_dropout: float | None = None
    read_morphemes: bool = False
    morpheme_dropout: float = 0.2
    token_columns: list[str] | None = None
    constrained: bool = True
    pad_token_id: int | None = 0
    special_token_ids: list[int] | None = None
    temperature: float | int = 1.0

    def __post_init__(self, **kwargs):
        check_number_of_labels(kwargs)
        for name in ("kiwi_version", "morphemes"):
            if kwargs.pop(name, None) is not None:
                raise ValueError(
                    f"{name}: the model was saved by an earlier version of this package and depends on one version of "
                    "Kiwi: train it again, or load it with trust_remote_code=True without importing this package"
                )
        if self.unit not in UNITS:
            raise ValueError(f"unit must be {' or '.join(map(repr, UNITS))}, got {self.unit!r}")
        for name, default in UNITS[self.unit].items():
            if getattr(self, name) is None:
                setattr(self, name, default)
        if self.ngrams is None:
            self.ngrams = [[-1, 0], [0, 1]]
        if self.token_columns is None:
            self.token_columns = ["character", "word_start", "initial", "vowel", "final"]
            self.token_columns += ["form", "shape"] if self.unit == "words" else []
        super().__post_init__(**kwargs)

    def validate_sizes(self) -> None:
        """Check the fields; `@strict` calls this."""
        if self.hidden_size <= 0 or self.hidden_size % 2:
            raise ValueError(f"hidden_size must be even and positive, half for each direction, got {self.hidden_size}")
        for name in (
            *("vocab_size", "embedding_size", "ngram_buckets", "num_hidden_layers"),
            *("num_filters", "word_embedding_size", "word_buckets", "shape_embedding_size"),
        ):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        for name in ("ngram_embedding_size", "jamo_embedding_size", "num_word_vectors", "word_vector_size"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} must not be negative, got {getattr(self, name)}")
        if not 0 < self.embedding_norm < float("inf"):
            raise ValueError(f"embedding_norm must be positive, got {self.embedding_norm}")
        for name in (
            *("embedding_dropout", "locked_dropout", "character_dropout"),
            *("ngram_dropout", "word_dropout", "morpheme_dropout"),
        ):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"{name} must be in [0, 1), got {getattr(self, name)}")
        for window in self.ngrams:
            if len(window) != 2 or window[0] > window[1]:
                raise ValueError(f"each of ngrams must be [first, last] with first <= last, got {window}")
            if max(-window[0], window[1]) > LARGEST_OFFSET:
                raise ValueError(f"each of ngrams must be at most {LARGEST_OFFSET} tokens away, got {window}")
        if self.unit == "words":
            if self.read_morphemes:
                raise ValueError('read_morphemes is for unit "characters": leave it out')
            if missing := {"character", "word_start", "form", "shape"} - set(self.token_columns):
                raise ValueError(f'token_columns lack {", ".join(sorted(missing))}, which unit "words" needs')
            if bool(self.num_word_vectors) != bool(self.word_vector_size):
                raise ValueError("num_word_vectors and word_vector_size are both 0, or both positive")
        check_special_tokens(self.special_token_ids)
        check_temperature(self.temperature)
