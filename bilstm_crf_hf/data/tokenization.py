"""Tokenizers of characters, saved as a plain `tokenizer.json` that `AutoTokenizer` loads without this package."""

from collections import Counter
from collections.abc import Iterable
from itertools import groupby

from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast
from transformers.tokenization_utils_base import VERY_LARGE_INTEGER

SPECIAL_TOKENS = {f"{name}_token": f"[{name.upper()}]" for name in ("pad", "unk", "cls", "sep", "mask")}
"""The special tokens, which have the first ids in this order."""


UNKNOWN = "\ufffd"
"""Character that stands for unknown ones of words: the token `[UNK]` would not tell whether it begins a word."""

_OPENING, _CLOSING = r"[\"“”‘«»„(\[{¿¡]", r"[\"”»)\]},;:!?]"
WORD_EDGES = "|".join(
    [
        rf"^({_OPENING})\1*(?=.)",
        rf"(?>({_CLOSING})\2*)(?=[\"”»)\]}},;:!?.'’]*$)",
        r"(?<=\p{L})['’]s?$",
        r"(?<=[\p{L})\]\"”»])(?>\.{2,})(?=[\"”»)\]'’]*$)",
        r"(?<=\p{Ll}{3})\.(?=[\"”»)\]'’]*$)",
    ]
)
"""Pattern of what is a word of its own at an edge of what stands between two spaces: brackets, quotation marks, commas
and the like, `'s`, and a full stop behind three small letters, which `U.S.`, `Mr.` and `Inc.` do not have.

An atomic group, `(?>...)`, gives nothing back: else the time for a word such as `!!!x` would grow with the cube of its
length."""


def build_character_tokenizer(
    texts: Iterable[str], min_frequency: int = 1, model_max_length: int = 512, unit: str = "characters"
) -> PreTrainedTokenizerFast:
    """Build a tokenizer with one token for each character and none for spaces.

    A character has two tokens, `가` at the beginning of a word and `##가` inside a word, so that word boundaries are
    preserved and `decode` restores the text. Text is NFKC-normalised first (`㎞` is read as `km`, and `ㅋ` as the jamo
    that KLUE's files contain). Offsets refer to the original text, and a run of white space is decoded as one space.
    Each unknown character, of less than `min_frequency` occurrences, is one `[UNK]`. `truncation=True` cuts texts at
    `model_max_length` tokens; the models themselves have no limit.

    With the unit `words` of the configuration, for which characters must tell where a word begins, punctuation at the
    edge of a word (`WORD_EDGES`) is a word of its own, an unknown character is the token of `UNKNOWN`, and texts are
    not cut.

    Raises:
        ValueError: if no character in the corpus is frequent enough.
    """
    normalizer: normalizers.Normalizer = normalizers.NFKC()
    counts = Counter(character for text in texts for character in normalizer.normalize_str(text))
    characters = sorted(c for c, count in counts.items() if count >= min_frequency and not c.isspace())
    if not characters:
        raise ValueError(f"no character occurs {min_frequency} times or more: give more texts, or lower min_frequency")
    pre_tokenizer: pre_tokenizers.PreTokenizer = pre_tokenizers.WhitespaceSplit()
    if unit == "words":
        unknown = Regex(rf"[^\s{_ranges(characters)}]")
        normalizer = normalizers.Sequence([normalizer, normalizers.Replace(unknown, UNKNOWN)])
        pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizer, pre_tokenizers.Split(Regex(WORD_EDGES), "isolated")])
        characters = sorted({*characters, UNKNOWN})
        model_max_length = VERY_LARGE_INTEGER
    tokens = [*SPECIAL_TOKENS.values(), *characters, *(f"##{c}" for c in characters)]
    ids = {token: i for i, token in enumerate(tokens)}
    # Byte-pair encoding without merges gives single characters, with the prefix inside words.
    tokenizer = Tokenizer(models.BPE(ids, merges=[], unk_token="[UNK]", continuing_subword_prefix="##"))
    tokenizer.normalizer = normalizer
    tokenizer.pre_tokenizer = pre_tokenizer
    tokenizer.decoder = decoders.WordPiece(prefix="##", cleanup=False)
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[(token, ids[token]) for token in ("[CLS]", "[SEP]")],
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        model_max_length=model_max_length,
        model_input_names=["input_ids", "attention_mask"],
        clean_up_tokenization_spaces=False,
        **SPECIAL_TOKENS,
    )


def _ranges(characters: list[str]) -> str:
    """Return sorted characters for a character class of a pattern, as ranges, of which it may have 10,000."""
    # In a run of consecutive characters, the code minus the place in the list is the same.
    runs = groupby(enumerate(map(ord, characters)), lambda pair: pair[1] - pair[0])
    codes = ([code for _, code in run] for _, run in runs)
    return "".join(f"\\x{{{run[0]:x}}}-\\x{{{run[-1]:x}}}" for run in codes)
