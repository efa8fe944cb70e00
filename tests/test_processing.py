"""Processing of texts, against the tokenizer itself; a further input, and a further column of the table of tokens."""

import copy
import subprocess
import sys
import textwrap

import pytest
import torch
import transformers
from conftest import LABELS, new_tagger
from packaging.version import parse
from tokenizers import Tokenizer, models
from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForTokenClassification,
    BertConfig,
    PreTrainedTokenizerFast,
)

from bilstm_crf_hf import (
    BiLSTMCRFConfig,
    BiLSTMCRFTokenClassificationPipeline,
    CharacterEncoderConfig,
    processing_bilstm_crf,
)
from bilstm_crf_hf.data.collation import TaggingCollator
from bilstm_crf_hf.processing_bilstm_crf import UNLIMITED, BiLSTMCRFProcessor, TextInput, usable_positions
from bilstm_crf_hf.token_table import TOKEN_COLUMNS


def test_windows_are_those_of_the_tokenizer(tokenizer, texts):
    options = {"truncation": True, "max_length": 12, "stride": 4, "return_overflowing_tokens": True}
    expected = tokenizer(texts, return_offsets_mapping=True, return_special_tokens_mask=True, **options)
    encoded = BiLSTMCRFProcessor(tokenizer)(texts, max_length=12, stride=4)
    assert encoded.inputs == {"input_ids": expected["input_ids"], "attention_mask": expected["attention_mask"]}
    assert encoded.text_ids == expected["overflow_to_sample_mapping"]
    assert encoded.offsets == expected["offset_mapping"]
    assert encoded.special_tokens_mask == expected["special_tokens_mask"]
    assert len(encoded.text_ids) > len(texts)


def test_a_text_without_stride_is_one_row(tokenizer, texts):
    encoded = BiLSTMCRFProcessor(tokenizer)(texts, max_length=12)
    assert encoded.text_ids == list(range(len(texts)))
    assert encoded.inputs["input_ids"] == tokenizer(texts, truncation=True, max_length=12)["input_ids"]


OLD = parse(transformers.__version__).release < (5, 20)
ROTARY = pytest.param(
    "modernbert", marks=pytest.mark.skipif(OLD, reason="transformers 5.14 cannot make its configuration")
)


@pytest.mark.parametrize(
    "kind", ["bert", "electra", "gpt2", ROTARY, "xlnet", *sorted(processing_bilstm_crf.COUNTING_FROM_PADDING)]
)
def test_usable_positions_are_those_that_an_encoder_has_an_embedding_for(kind, tokenizer):
    """Compare with the encoder itself, which reads this number of tokens and, with a table of positions, no more."""
    positions = 40
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    more = {"pad_token_id": 1, "bos_token_id": None, "eos_token_id": None}
    more |= {"languages": ["ko_KR"], "default_language": "ko_KR"} if kind == "xmod" else {}
    more |= {"attention_window": 4, "entity_vocab_size": 8} if kind in ("longformer", "luke") else {}
    more |= {"d_head": 8} if kind == "xlnet" else {}
    more |= {} if kind == "xlnet" else {"max_position_embeddings": positions}
    config = AutoConfig.for_model(kind, vocab_size=50, **sizes, **more)
    own_tokenizer = copy.deepcopy(tokenizer)
    own_tokenizer.model_max_length = int(1e30)
    usable = usable_positions(own_tokenizer, config)
    limit = {"xlnet": UNLIMITED, "bert": 40, "electra": 40, "gpt2": 40, "modernbert": 40}.get(kind, 38)
    assert usable == limit
    model = AutoModel.from_config(config).eval()

    def reads(length: int) -> bool:
        inputs = {"input_ids": torch.full((1, length), 5), "attention_mask": torch.ones(1, length, dtype=torch.long)}
        try:
            model(**inputs)
        except (IndexError, RuntimeError):
            return False
        return True

    assert reads(min(usable, 100))
    assert kind in ("xlnet", "modernbert") or not reads(usable + 1)


@pytest.mark.parametrize(
    ("own", "positions", "given", "usable"),
    [
        *[(512, 32, None, 32), (20, 32, None, 20), (20, 32, 30, 30), (20, 32, 100, 32)],
        *[(20, None, 100, 100), (20, None, None, 20)],
    ],
)
def test_the_tightest_limit_counts_and_a_given_one_takes_the_place_of_the_tokenizers(
    tokenizer, own, positions, given, usable
):
    own_tokenizer = copy.deepcopy(tokenizer)
    own_tokenizer.model_max_length = own
    config = BiLSTMCRFConfig() if positions is None else BertConfig(max_position_embeddings=positions)
    assert usable_positions(own_tokenizer, config, given) == usable


def test_pieces_of_a_window_are_those_of_its_own_part_of_the_text(tokenizer, texts):
    """Each character gets the piece that covers it, however far from the beginning of the text it is."""
    text = " ".join(texts)
    pieces = copy.deepcopy(tokenizer)  # of one character each, so that a piece and its character have equal ids
    config = CharacterEncoderConfig(encoder_config=BertConfig(max_position_embeddings=24))
    encoded = BiLSTMCRFProcessor(tokenizer, config, pieces)([text, texts[0]], stride=4)
    assert len(encoded.text_ids) > 5
    for ids, piece_ids, index, special in zip(
        *(encoded.inputs[name] for name in ("input_ids", "piece_ids", "piece_index")), encoded.special_tokens_mask
    ):
        assert len(piece_ids) <= 24
        covering = [piece_ids[i] for i in index]
        names = zip(tokenizer.convert_ids_to_tokens(ids), tokenizer.convert_ids_to_tokens(covering), special)
        assert all(own.removeprefix("##") == piece.removeprefix("##") for own, piece, out in names if not out)


def test_a_row_with_more_pieces_than_positions_is_an_error(tokenizer):
    pieces = copy.deepcopy(tokenizer)
    config = CharacterEncoderConfig(encoder_config=BertConfig(max_position_embeddings=24))
    kelvin = "\u33a2" * 20  # a character of three pieces
    characters = Tokenizer(
        models.BPE({"[UNK]": 0, "\u33a2": 1, "##\u33a2": 2}, [], unk_token="[UNK]", continuing_subword_prefix="##")
    )  # noqa: E501
    own = PreTrainedTokenizerFast(tokenizer_object=characters, unk_token="[UNK]")
    with pytest.raises(ValueError, match=r"62 pieces for 20 characters, and the encoder reads 24: set max_length"):
        BiLSTMCRFProcessor(own, config, pieces)([kelvin])


@pytest.mark.parametrize("delimiter", [" ", "", " / "])
def test_words_are_read_as_the_joined_text_that_the_training_reads(tokenizer, texts, delimiter):
    words = [*(text.split() for text in texts), ["서울", "", " ", "뉴 욕", "\u200b", "ab" * 2500], [], [""]]
    encoded = BiLSTMCRFProcessor(tokenizer)(words, is_split_into_words=True, delimiter=delimiter)
    joined = [delimiter.join(row) for row in words]
    assert encoded.texts == joined
    assert encoded.inputs["input_ids"] == tokenizer(joined, truncation=True)["input_ids"]
    assert encoded.offsets == tokenizer(joined, truncation=True, return_offsets_mapping=True)["offset_mapping"]


def test_a_slow_tokenizer_is_refused():
    class SlowTokenizer:
        is_fast = False

    with pytest.raises(ValueError, match="SlowTokenizer gives no offsets into the text: use a fast tokenizer"):
        BiLSTMCRFProcessor(SlowTokenizer())


def test_a_further_input_is_one_row_of_the_table(tagger, tokenizer, texts, monkeypatch):
    """The pipeline computes it and the model hands it to `InputFeatures`, under its name."""
    seen = []
    count = TextInput(
        "num_labels",
        "library",
        lambda: "1.0",
        lambda texts, offsets: [[len(text)] * len(pairs) for text, pairs in zip(texts, offsets, strict=True)],
    )
    monkeypatch.setitem(processing_bilstm_crf.TEXT_INPUTS, "text_lengths", count)
    forward = tagger.bilstm.features.forward
    monkeypatch.setattr(
        tagger.bilstm.features,
        "forward",
        lambda input_ids, inside, **inputs: seen.append(inputs["text_lengths"]) or forward(input_ids, inside, **inputs),
    )
    BiLSTMCRFTokenClassificationPipeline(model=tagger, tokenizer=tokenizer)(texts[0])
    assert (seen[0] == len(texts[0])).all()
    encoded = BiLSTMCRFProcessor(tokenizer, tagger.config)(texts[:1])
    row = {name: rows[0] for name, rows in encoded.inputs.items()}
    tagger(**TaggingCollator(tokenizer)([row | {"labels": [LABELS.index("O")] * len(row["input_ids"])}]))
    assert len(seen) == 2


def test_trainer_keeps_the_columns_of_text_inputs(tagger):
    """`Trainer` drops the columns that the signature of `forward` does not name."""
    import inspect

    assert set(processing_bilstm_crf.TEXT_INPUTS) <= set(inspect.signature(tagger.forward).parameters)


@pytest.mark.slow
def test_a_new_column_of_the_table_of_tokens_breaks_no_saved_model(tokenizer, texts, tmp_path):
    """A process whose version knows one more column loads a model that was saved without it, and saves one with it."""
    tagger = new_tagger(tokenizer)
    tagger.save_pretrained(tmp_path / "before")
    tokenizer.save_pretrained(tmp_path / "before")
    script = f"""
    import sys, torch
    from pathlib import Path
    import bilstm_crf_hf
    from bilstm_crf_hf import modeling_bilstm_crf, token_table
    from transformers import AutoModelForTokenClassification, AutoTokenizer
    table = token_table.token_table
    names = (*token_table.TOKEN_COLUMNS, "length")
    def longer(tokenizer, columns=names):
        rows = table(tokenizer, [name for name in columns if name != "length"])
        return torch.cat([rows, torch.ones(len(rows), 1, dtype=torch.long)], 1) if "length" in columns else rows
    modeling_bilstm_crf.TOKEN_COLUMNS, modeling_bilstm_crf.token_table = names, longer
    folder = Path({str(tmp_path)!r})
    model = AutoModelForTokenClassification.from_pretrained(folder / "before")
    tokenizer = AutoTokenizer.from_pretrained(folder / "before")
    batch = tokenizer({texts!r}, padding=True, return_tensors="pt")
    torch.save(model(**batch).logits, folder / "logits.pt")
    new = type(model).from_tokenizer(tokenizer, num_labels=3)
    new.save_pretrained(folder / "after")
    assert new.bilstm.features.token_table.shape[1] == 8
    assert type(model).from_pretrained(folder / "after").bilstm.features.token_table[:, 7].eq(1).all()
    """
    subprocess.run([sys.executable, "-c", textwrap.dedent(script)], check=True)
    expected = tagger(**tokenizer(texts, padding=True, return_tensors="pt")).logits
    assert torch.load(tmp_path / "logits.pt").equal(expected.detach())
    # This version, too, keeps the columns of a model that another version saved.
    loaded = AutoModelForTokenClassification.from_pretrained(tmp_path / "after")
    assert loaded.config.token_columns == [*TOKEN_COLUMNS, "length"]
    assert loaded.bilstm.features.token_table.shape[1] == len(TOKEN_COLUMNS) + 1
