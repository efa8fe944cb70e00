"""Builds tokenizers as plain tokenizer.json files, which `AutoTokenizer` loads without code of ours."""

from collections import Counter
from collections.abc import Iterable

from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

SPECIAL_TOKENS = {
    "pad_token": "[PAD]",
    "unk_token": "[UNK]",
    "cls_token": "[CLS]",
    "sep_token": "[SEP]",
    "mask_token": "[MASK]",
}


def build_character_tokenizer(
    texts: Iterable[str], min_frequency: int = 1, model_max_length: int = 512
) -> PreTrainedTokenizerFast:
    """A tokenizer with one token a character and none for spaces.

    A character at the beginning of a word and the same one within a word are two tokens, `가` and `##가`, so that no
    word boundary is lost and `decode` gives the text back. Text is NFKC-normalised first (`㎞` is read as `km`, and
    `ㅋ` as the jamo that KLUE's files have); offsets are those of the original text, a run of white space is decoded as
    one space. Unknown characters are `[UNK]` one by one.

    Args:
        texts: the corpus. Every character in it gets both tokens.
        min_frequency: characters that are rarer than this are left out.
        model_max_length: where `truncation=True` cuts and what `stride` counts from; the models have no limit.

    Raises:
        ValueError: no character in the corpus is frequent enough.
    """
    normalizer = normalizers.NFKC()
    counts = Counter(character for text in texts for character in normalizer.normalize_str(text))
    characters = sorted(c for c, count in counts.items() if count >= min_frequency and not c.isspace())
    if not characters:
        raise ValueError(f"no character occurs {min_frequency} times or more: is the corpus empty?")
    tokens = [*SPECIAL_TOKENS.values(), *characters, *(f"##{c}" for c in characters)]
    # Byte-pair encoding without a merge leaves single characters, those within a word with the prefix.
    model = models.BPE(
        vocab={token: i for i, token in enumerate(tokens)},
        merges=[],
        unk_token=SPECIAL_TOKENS["unk_token"],
        continuing_subword_prefix="##",
    )
    tokenizer = Tokenizer(model)
    tokenizer.normalizer = normalizer
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.decoder = decoders.WordPiece(prefix="##", cleanup=False)
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[(token, tokens.index(token)) for token in ("[CLS]", "[SEP]")],
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        model_max_length=model_max_length,
        model_input_names=["input_ids", "attention_mask"],
        clean_up_tokenization_spaces=False,
        **SPECIAL_TOKENS,
    )
