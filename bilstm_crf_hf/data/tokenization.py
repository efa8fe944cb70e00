"""Tokenizers of characters, saved as a plain `tokenizer.json` that `AutoTokenizer` loads without this package."""

from collections import Counter
from collections.abc import Iterable

from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

SPECIAL_TOKENS = {f"{name}_token": f"[{name.upper()}]" for name in ("pad", "unk", "cls", "sep", "mask")}
"""The special tokens, which have the first ids in this order."""


def build_character_tokenizer(
    texts: Iterable[str], min_frequency: int = 1, model_max_length: int = 512
) -> PreTrainedTokenizerFast:
    """Build a tokenizer with one token for each character and none for spaces.

    A character has two tokens, `가` at the beginning of a word and `##가` inside a word, so that word boundaries are
    preserved and `decode` restores the text. Text is NFKC-normalised first (`㎞` is read as `km`, and `ㅋ` as the jamo
    that KLUE's files contain). Offsets refer to the original text, and a run of white space is decoded as one space.
    Each unknown character, of less than `min_frequency` occurrences, is one `[UNK]`. `truncation=True` cuts texts at
    `model_max_length` tokens; the models themselves have no limit.

    Raises:
        ValueError: if no character in the corpus is frequent enough.
    """
    normalizer = normalizers.NFKC()
    counts = Counter(character for text in texts for character in normalizer.normalize_str(text))
    characters = sorted(c for c, count in counts.items() if count >= min_frequency and not c.isspace())
    if not characters:
        raise ValueError(f"no character occurs {min_frequency} times or more: give more texts, or lower min_frequency")
    tokens = [*SPECIAL_TOKENS.values(), *characters, *(f"##{c}" for c in characters)]
    ids = {token: i for i, token in enumerate(tokens)}
    # Byte-pair encoding without merges gives single characters, with the prefix inside words.
    tokenizer = Tokenizer(models.BPE(ids, merges=[], unk_token="[UNK]", continuing_subword_prefix="##"))
    tokenizer.normalizer = normalizer
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
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
