"""Tests of the tagger of characters on an encoder, against loops over single characters and sentences."""

import pytest
import torch
from clean_process import run_without_package
from conftest import LABELS, SENTENCES, new_tagger
from corpora import read_corpus
from torch.testing import assert_close
from transformers import AutoTokenizer, BertConfig, BertModel, BertTokenizer

from bilstm_crf_hf import (
    BiLSTMCRFModel,
    BiLSTMCRFTokenClassificationPipeline,
    CharacterEncoderForTokenClassification,
)
from bilstm_crf_hf.data.collation import TaggingCollator
from bilstm_crf_hf.data.encoding import EncodedCorpus
from bilstm_crf_hf.evaluation.tasks import label_maps
from bilstm_crf_hf.processing_bilstm_crf import BiLSTMCRFProcessor, piece_inputs
from bilstm_crf_hf.training.arguments import ModelArguments
from bilstm_crf_hf.training.distillation import Teacher, with_own_posteriors
from bilstm_crf_hf.training.loading import load_model
from bilstm_crf_hf.training.new_labels import with_labels

WORDPIECES = [
    "[PAD]",
    "[UNK]",
    "[CLS]",
    "[SEP]",
    "[MASK]",
    "손흥",
    "##민은",
    "1992년",
    "춘천",
    "##에서",
    "서울",
    "##로",
    ".",
]


@pytest.fixture(scope="module")
def wordpiece(tmp_path_factory) -> BertTokenizer:
    vocabulary = tmp_path_factory.mktemp("vocabulary") / "vocab.txt"
    vocabulary.write_text("\n".join(WORDPIECES), encoding="utf-8")
    return BertTokenizer(str(vocabulary), do_lower_case=False)


@pytest.fixture(scope="module")
def parts(wordpiece, tokenizer, tmp_path_factory):
    """Save a small BERT and a small BiLSTM, each with its tokenizer, and return the folders."""
    encoder, bilstm = tmp_path_factory.mktemp("encoder"), tmp_path_factory.mktemp("bilstm")
    torch.manual_seed(0)
    shape = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
    BertModel(BertConfig(vocab_size=len(WORDPIECES), initializer_range=0.5, **shape)).save_pretrained(encoder)
    wordpiece.save_pretrained(encoder)
    new_tagger(tokenizer).bilstm.save_pretrained(bilstm)
    tokenizer.save_pretrained(bilstm)
    return encoder, bilstm


@pytest.fixture(scope="module")
def model(parts):
    encoder, bilstm = parts
    arguments = ModelArguments(model_name_or_path=str(encoder), head="characters", tokenizer_name=str(bilstm))
    torch.manual_seed(0)
    return load_model(arguments, AutoTokenizer.from_pretrained(bilstm), LABELS).eval()


@pytest.fixture(scope="module")
def corpus(tokenizer, wordpiece, tmp_path_factory) -> EncodedCorpus:
    path = tmp_path_factory.mktemp("data") / "sentences.txt"
    path.write_text("\n".join(SENTENCES), encoding="utf-8")
    return EncodedCorpus(read_corpus(path), BiLSTMCRFProcessor(tokenizer, piece_tokenizer=wordpiece), LABELS)


def test_piece_index_is_that_of_the_piece_that_covers_a_character(tokenizer, wordpiece):
    """The pieces are `손흥`, `##민은`, `춘천`, `##에서` and `.`; a word unknown to the encoder is one [UNK]."""
    texts = ["손흥민은  춘천에서.", "봉준호"]
    offsets = tokenizer(texts, return_offsets_mapping=True).offset_mapping
    columns = piece_inputs(texts, offsets, wordpiece)
    assert columns["piece_ids"] == [[2, 5, 6, 8, 9, 12, 3], [2, 1, 3]]
    assert [index[1:-1] for index in columns["piece_index"]] == [[1, 1, 2, 2, 3, 3, 4, 4, 5], [1, 1, 1]]


def test_encoder_and_bilstm_have_the_pretrained_weights(model, parts):
    encoder, bilstm = parts
    for body, pretrained in (
        (model.encoder, BertModel.from_pretrained(encoder)),
        (model.bilstm, BiLSTMCRFModel.from_pretrained(bilstm)),
    ):
        state = pretrained.state_dict()
        assert all(value.equal(state[name]) for name, value in body.state_dict().items())


def test_a_sentence_does_not_depend_on_its_neighbours(model, tokenizer, wordpiece, corpus):
    """Compare loss and posterior in a batch, where pieces and characters are padded, with those alone."""
    collate = TaggingCollator(tokenizer)
    rows = [corpus.inputs[i] for i in range(len(corpus.inputs))]
    together = model(**collate(rows))
    alone = [model(**collate([row])) for row in rows]
    assert_close(together.loss, torch.stack([output.loss for output in alone]).mean(), atol=1e-4, rtol=1e-5)
    for i, output in enumerate(alone):
        length = output.logits.shape[1]
        assert_close(together.logits[i, :length], output.logits[0], atol=1e-4, rtol=1e-4)
        assert together.predictions[i, :length].equal(output.predictions[0])


def test_a_character_gets_the_state_of_its_piece(model, tokenizer, wordpiece):
    """Compare the input of the last BiLSTM layer with the outputs of BiLSTM and encoder, concatenated in a loop."""
    text = "손흥민은 춘천에서."
    encoded = tokenizer(text, return_offsets_mapping=True)
    row = {"input_ids": encoded.input_ids, "attention_mask": encoded.attention_mask}
    columns = piece_inputs([text], [encoded.offset_mapping], wordpiece)
    seen = []
    hook = model.layer.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0][0]))
    model(**TaggingCollator(tokenizer)([row | {name: values[0] for name, values in columns.items()}]))
    hook.remove()
    characters = model.bilstm(torch.tensor([encoded.input_ids])).last_hidden_state[0, 1:-1]
    states = model.norm(model.encoder(**wordpiece(text, return_tensors="pt")).last_hidden_state[0])
    expected = torch.stack(
        [
            torch.cat([characters[i], states[piece]])
            for i, piece in enumerate([1, 1, 2, 2, 3, 3, 4, 4, 5])  # 손흥 ##민은 춘천 ##에서 .
        ]
    )
    assert_close(seen[0][:, 0], expected, atol=1e-5, rtol=1e-4)


@pytest.mark.slow
def test_a_saved_model_works_without_the_package_and_as_a_teacher(model, tokenizer, wordpiece, tmp_path):
    """Compare its logits with those of the saved model, and its posterior of characters with that of a `Teacher`."""
    text = "손흥민은 춘천에서."
    model.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    encoded = tokenizer(text, return_offsets_mapping=True)
    row = {"input_ids": encoded.input_ids, "attention_mask": encoded.attention_mask}
    columns = piece_inputs([text], [encoded.offset_mapping], wordpiece)
    batch = TaggingCollator(tokenizer)([row | {name: values[0] for name, values in columns.items()}])
    logits = model(**batch).logits
    torch.save(dict(batch), tmp_path / "batch.pt")
    script = f"""
import torch
from transformers import AutoModelForTokenClassification
model = AutoModelForTokenClassification.from_pretrained({str(tmp_path)!r}, trust_remote_code=True)
print(model(**torch.load({str(tmp_path / "batch.pt")!r})).logits.sum().item())
"""
    assert run_without_package(script, tmp_path) == pytest.approx(logits.sum().item(), rel=1e-4)
    (probabilities,) = Teacher(model, BiLSTMCRFProcessor(tokenizer, piece_tokenizer=wordpiece), LABELS)([text])
    starts = [start for start, end in encoded.offset_mapping if start < end]
    assert_close(torch.from_numpy(probabilities)[starts], logits[0, 1:-1].softmax(-1), atol=1e-5, rtol=1e-4)


def test_the_configuration_has_the_label_names_of_the_task(model):
    assert model.config.id2label == label_maps(LABELS)["id2label"]
    assert isinstance(model, CharacterEncoderForTokenClassification)


@pytest.mark.parametrize("side", ["left", "right"])
def test_collator_pads_characters_and_pieces_separately(tokenizer, wordpiece, corpus, side):
    rows = [corpus.inputs[i] for i in (0, 5)]
    tokenizer.padding_side = side
    batch = TaggingCollator(tokenizer, padding="max_length", max_length=40)(rows)
    tokenizer.padding_side = "right"
    for i, row in enumerate(rows):
        inside = batch["attention_mask"][i].bool()
        assert batch["piece_index"][i][inside].tolist() == row["piece_index"]
        pieces = len(row["piece_ids"])
        assert batch["piece_ids"][i, :pieces].tolist() == row["piece_ids"]
        assert batch["piece_mask"][i].sum() == batch["piece_mask"][i, :pieces].sum() == pieces
    assert batch["piece_index"].shape == (2, 40)
    assert not batch["piece_index"][~batch["attention_mask"].bool()].any()
    assert batch["piece_ids"].shape[1] == max(len(row["piece_ids"]) for row in rows)


def test_a_pipeline_without_the_pieces_refuses_the_model(model, tokenizer):
    tagger = model[0] if isinstance(model, tuple) else model
    with pytest.raises(ValueError, match="also reads the pieces of its encoder's tokenizer"):
        BiLSTMCRFTokenClassificationPipeline(model=tagger, tokenizer=tokenizer)


def test_with_new_labels_it_holds_on_to_what_it_says(model, tokenizer, wordpiece, texts, tmp_path):
    """In sentences without an entity, the labels to learn are its own predictions."""
    path = tmp_path / "sentences.txt"
    path.write_text("\n".join([*texts, "<한국은행:OG>"]), encoding="utf-8")
    processor = BiLSTMCRFProcessor(tokenizer, piece_tokenizer=wordpiece)
    corpus = EncodedCorpus(read_corpus(path), processor, [*LABELS, "B-OG", "I-OG"])
    grown = with_labels(model, ["B-OG", "I-OG"])
    rows = with_own_posteriors(grown, corpus, 1.0, batch_size=4)
    for row, gold in zip(rows, corpus.inputs["labels"][:], strict=True):
        if LABELS.index("O") in gold:
            inputs = {name: torch.tensor([row[name]]) for name in rows.column_names if "labels" not in name}
            assert row["labels"] == model(**inputs).predictions[0].tolist()
