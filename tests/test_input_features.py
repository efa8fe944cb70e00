"""Tests of the token table and of hashed n-grams, against plain Python and Unicode's decomposition."""

import itertools
import random
import unicodedata

import pytest
import torch
from conftest import new_tagger
from tokenizers import Tokenizer, models
from transformers import PreTrainedTokenizerFast

from bilstm_crf_hf.data.tokenization import SPECIAL_TOKENS, build_character_tokenizer
from bilstm_crf_hf.input_features import hash_ngrams
from bilstm_crf_hf.sequences import Sequences
from bilstm_crf_hf.token_table import JAMO_COUNTS, TOKEN_COLUMNS, token_table

CHARACTER, WORD_START, INITIAL, VOWEL, FINAL, FORM, SHAPE = range(len(TOKEN_COLUMNS))


def described(tokenizer):
    """Return the rows of the token table by token."""
    table = token_table(tokenizer)
    return {token: table[i].tolist() for token, i in tokenizer.get_vocab().items()}


@pytest.fixture(scope="module")
def characters():
    return build_character_tokenizer(["서울에 각힣가 # 漢 1A ㅋ"])


@pytest.fixture(scope="module")
def wordpiece():
    tokens = [*SPECIAL_TOKENS.values(), "서울", "##서울", "##에서", "가", "##가", "##나", "#", "1", "##1"]
    model = models.WordPiece({token: i for i, token in enumerate(tokens)}, unk_token="[UNK]")
    return PreTrainedTokenizerFast(tokenizer_object=Tokenizer(model), **SPECIAL_TOKENS)


@pytest.fixture(scope="module")
def sentencepiece():
    tokens = ["<pad>", "<unk>", "<s>", "</s>", "▁", "▁서울", "서울", "▁가", "가", "나", "에서"]
    model = models.Unigram([(token, -1.0) for token in tokens], unk_id=1)
    special = {"pad_token": "<pad>", "unk_token": "<unk>", "bos_token": "<s>", "eos_token": "</s>"}
    return PreTrainedTokenizerFast(tokenizer_object=Tokenizer(model), **special)


# Token table


def test_a_row_stands_for_each_token_of_the_vocabulary(characters):
    assert token_table(characters).shape == (len(characters), 7)
    assert not token_table(characters).is_floating_point()


def test_a_character_at_the_beginning_of_a_word_and_within_one_is_the_same_character(characters):
    table, ids = described(characters), characters.get_vocab()
    for character in "서울각#漢1A":
        assert table[character][CHARACTER] == table[f"##{character}"][CHARACTER] == ids[character]
    assert len({table[character][CHARACTER] for character in "서울에각힣가#漢1A"}) == 10


@pytest.mark.parametrize(
    ("name", "pairs", "alone"),
    [
        ("wordpiece", [("서울", "##서울"), ("가", "##가"), ("1", "##1")], ["##에서", "##나", "#"]),
        ("sentencepiece", [("▁서울", "서울"), ("▁가", "가")], ["▁", "나", "에서"]),
    ],
)
def test_pieces_share_the_id_of_their_word_initial_form_where_there_is_one(request, name, pairs, alone):
    tokenizer = request.getfixturevalue(name)
    table, ids = described(tokenizer), tokenizer.get_vocab()
    for initial, inner in pairs:
        assert table[initial][CHARACTER] == table[inner][CHARACTER] == ids[initial]
    for token in [*alone, *tokenizer.all_special_tokens]:
        assert table[token][CHARACTER] == ids[token]


@pytest.mark.parametrize(
    ("name", "starts"),
    [
        ("characters", {*"서울에각힣가#漢1A", "\u110f", "[UNK]"}),
        ("wordpiece", {"서울", "가", "#", "1", "[UNK]"}),
        ("sentencepiece", {"▁", "▁서울", "▁가"}),
    ],
)
def test_word_starts_of_a_vocabulary(request, name, starts):
    table = described(request.getfixturevalue(name))
    assert {token for token, row in table.items() if row[WORD_START]} == starts


@pytest.mark.parametrize("syllable", [*"가각힣개까서울에뷁쀏꽥"])
@pytest.mark.parametrize("prefix", ["", "##"])
def test_jamo_of_a_syllable_are_those_of_its_canonical_decomposition(syllable, prefix):
    row = described(build_character_tokenizer([syllable]))[prefix + syllable]
    jamo = [ord(letter) for letter in unicodedata.normalize("NFD", syllable)]
    assert row[INITIAL] == jamo[0] - 0x1100 + 1
    assert row[VOWEL] == 19 + jamo[1] - 0x1161 + 1
    assert row[FINAL] == 19 + 21 + (jamo[2] - 0x11A7 + 1 if len(jamo) == 3 else 1)


def test_jamo_indices_fill_their_ranges_one_behind_the_other_from_1_on():
    """All 11172 syllables are `19 * 21 * 28` different combinations; 0 is for tokens that are not syllables."""
    syllables = [chr(code) for code in range(ord("가"), ord("힣") + 1)]
    rows = token_table(build_character_tokenizer(["".join(syllables)]))[len(SPECIAL_TOKENS) :, [INITIAL, VOWEL, FINAL]]
    assert len(rows) == 2 * len(syllables)
    assert len(rows.unique(dim=0)) == len(syllables)
    assert rows.amin(0).tolist() == [1, 20, 41]
    assert rows.amax(0).tolist() == [19, 40, 68] == list(itertools.accumulate(JAMO_COUNTS))


@pytest.mark.parametrize(
    ("name", "tokens"),
    [
        ("characters", ["[PAD]", "[UNK]", "[CLS]", "#", "###", "漢", "##A", "1", "\u110f"]),
        ("wordpiece", ["서울", "##에서", "##1", "[MASK]"]),
        ("sentencepiece", ["▁", "▁서울", "서울", "<unk>", "</s>"]),
    ],
)
def test_what_is_no_single_syllable_has_no_jamo(request, name, tokens):
    table = described(request.getfixturevalue(name))
    assert {tuple(table[token][INITIAL : FINAL + 1]) for token in tokens} == {(0, 0, 0)}


def test_syllables_of_sentencepiece_have_their_jamo_with_and_without_the_word_mark(sentencepiece):
    table = described(sentencepiece)
    jamo = {piece: row[INITIAL : FINAL + 1] for piece, row in table.items()}
    assert jamo["▁가"] == jamo["가"] == [1, 20, 41]
    assert jamo["나"] == [3, 20, 41]


def test_special_tokens_begin_no_word_but_the_unknown_one_of_wordpiece(characters, sentencepiece):
    for tokenizer, unknown in ((characters, ["[UNK]"]), (sentencepiece, [])):
        table = described(tokenizer)
        assert [token for token in tokenizer.all_special_tokens if table[token][WORD_START]] == unknown


# Hashed n-grams


def fnv(characters, seed):
    """Return the 32-bit FNV-1a hash with `seed` added to the offset basis and the upper bits folded in."""
    value = 2166136261 + seed
    for character in characters:
        value ^= character
        value = value * 16777619 % 2**32
    return value ^ (value >> 15)


WINDOWS = [[0, 0], [-1, 0], [0, 1], [-2, -1], [1, 2], [-2, 2], [-7, 3], [0, 0]]


def batch_of(sequences):
    """Return the sequences as (T, B), padded with zeros."""
    return torch.nn.utils.rnn.pad_sequence([torch.tensor(sequence) for sequence in sequences])


def random_sequences(seed, vocabulary=40000):
    rng = random.Random(seed)
    return [[rng.randrange(1, vocabulary) for _ in range(length)] for length in (1, 2, 5, 9, 3)]


@pytest.mark.parametrize("buckets", [7, 65536, 2**32])
def test_buckets_are_those_of_fnv_in_plain_python(buckets):
    sequences = random_sequences(0)
    hashes = hash_ngrams(batch_of(sequences), WINDOWS, buckets)
    assert hashes.shape == (9, 5, len(WINDOWS))
    for b, sequence in enumerate(sequences):
        for t in range(len(sequence)):
            for w, (first, last) in enumerate(WINDOWS):
                window = [sequence[i] if 0 <= i < len(sequence) else 0 for i in range(t + first, t + last + 1)]
                assert hashes[t, b, w] == fnv(window, w) % buckets


def test_windows_over_the_same_characters_have_buckets_of_their_own():
    """The 32-bit hash is a bijection of its seed, so that two windows only collide if there are fewer buckets."""
    sequences = random_sequences(1)
    same = [[0, 0]] * 6
    hashes = hash_ngrams(batch_of(sequences), same, 2**32)
    assert all(len(set(row)) == len(same) for row in hashes.flatten(0, 1).tolist())
    bigrams = hash_ngrams(torch.tensor([[5], [6]]), [[-1, 0], [0, 1]], 2**32)
    assert bigrams[1, 0, 0] != bigrams[0, 0, 1]  # the bigram 5 6 in either window


def test_order_and_length_of_the_characters_count():
    hashes = hash_ngrams(torch.tensor([[3, 4, 3], [4, 3, 3]]), [[-1, 0]], 2**32)
    assert len(set(hashes[1, :, 0].tolist())) == 3
    ends = hash_ngrams(torch.tensor([[3], [4]]), [[0, 1]], 2**32)
    assert ends[1, 0, 0] == fnv([4, 0], 0) != fnv([4], 0)


def test_buckets_of_a_sequence_are_the_same_alone_and_beside_longer_ones():
    sequences = random_sequences(2)
    together = hash_ngrams(batch_of(sequences), WINDOWS, 65536)
    for b, sequence in enumerate(sequences):
        alone = hash_ngrams(torch.tensor(sequence)[:, None], WINDOWS, 65536)
        assert torch.equal(together[: len(sequence), b], alone[:, 0])


@pytest.mark.parametrize("buckets", [1, 2, 100])
def test_buckets_are_within_the_table_also_for_the_largest_ids(buckets):
    characters = torch.tensor([[1, 2**31 - 1, 2**31 - 1], [2**31 - 1, 0, 250000]])
    hashes = hash_ngrams(characters, WINDOWS, buckets)
    assert hashes.min() >= 0
    assert hashes.max() < buckets


def test_the_hash_spreads_neighbouring_ids_over_the_table():
    """Ids of a vocabulary are consecutive numbers: 2000 ids in 2000 buckets should leave about 1 / e of these empty."""
    hashes = hash_ngrams(torch.arange(1, 2001)[None], [[0, 0]], 2000)
    assert 1150 < len(hashes.unique()) < 1380


@pytest.mark.parametrize("direction", ["ahead", "behind"])
def test_a_direction_reads_no_farther_than_a_token_ahead(tokenizer, direction):
    """Change each of five tokens: the input at the middle one changes only for tokens in its windows."""
    model = new_tagger(tokenizer, ngrams=[[-1, 0], [0, 1], [-2, 0], [0, 2]], ngram_dropout=0.0).bilstm.eval()
    ids = torch.tensor([[7], [9], [11], [13], [15]])

    def middle(ids: torch.Tensor) -> torch.Tensor:
        return model.features(ids.T, Sequences(ids.T, None, []))[direction == "behind"][2, 0]

    changes = []
    for i in range(5):
        changed = ids.clone()
        changed[i] += 1
        changes.append(not torch.equal(middle(changed), middle(ids)))
    assert changes == ([True] * 4 + [False] if direction == "ahead" else [False] + [True] * 4)
    assert len(middle(ids)) == model.features.widths[0] == model.features.widths[1]


def test_directions_share_one_input_where_they_read_the_same(tokenizer):
    features = new_tagger(tokenizer).bilstm.features
    ids = torch.tensor([[7], [9]])
    ahead, behind = features(ids.T, Sequences(ids.T, None, []))
    assert ahead is behind
