"""Converted checkpoints against the tutorial's class, which is written down here once more."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from clean_process import run_without_package
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors, trainers
from torch import nn
from torchcrf import CRF
from transformers import AutoModelForTokenClassification, AutoTokenizer, PreTrainedTokenizerFast

from bilstm_crf_hf import BiLSTMCRFForTokenClassification
from bilstm_crf_hf.data.inline_marks import parse_inline
from bilstm_crf_hf.data.tokenization import SPECIAL_TOKENS
from bilstm_crf_hf.hub import legacy_checkpoint
from bilstm_crf_hf.hub.legacy_checkpoint import convert_checkpoint

RECIPES = Path(__file__).parents[2] / "recipes"
TAGS = ["O", "B-PS", "I-PS", "B-LC", "I-LC", "B-DT", "I-DT"]


class TutorialTagger(nn.Module):
    """The tutorial's class, as published."""

    def __init__(self, vocab_size, tag_to_ix, embedding_dim, hidden_dim, num_layers=1):
        super().__init__()
        self.word_embeds = nn.Embedding(vocab_size, embedding_dim)
        self.lstm = nn.LSTM(embedding_dim, hidden_dim // 2, num_layers=num_layers, bidirectional=True, batch_first=True)
        self.hidden2tag = nn.Linear(hidden_dim, len(tag_to_ix))
        self.crf = CRF(len(tag_to_ix), batch_first=True)

    def emissions(self, input_ids):
        return self.hidden2tag(self.lstm(self.word_embeds(input_ids))[0])

    def forward(self, input_ids, attention_mask):
        return self.crf.decode(self.emissions(input_ids), mask=attention_mask.bool())


@pytest.fixture(scope="module")
def sentences() -> list[str]:
    lines = (RECIPES / "data" / "ner" / "validation.txt").read_text(encoding="utf-8").splitlines()
    return [parse_inline(line)[0] for line in lines[:40]]


@pytest.fixture(scope="module")
def wordpiece(sentences) -> PreTrainedTokenizerFast:
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=False)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    special = list(SPECIAL_TOKENS.values())
    trainer = trainers.WordPieceTrainer(special_tokens=special, show_progress=False)
    tokenizer.train_from_iterator(sentences, trainer)
    tokenizer.post_processor = processors.BertProcessing(
        *((token, tokenizer.token_to_id(token)) for token in ("[SEP]", "[CLS]"))
    )
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, **SPECIAL_TOKENS)


def new_tutorial_tagger(vocab_size: int, tags: list[str] = TAGS, **sizes) -> TutorialTagger:
    """Random weights, whose best paths BIO would not allow."""
    torch.manual_seed(0)
    model = TutorialTagger(vocab_size, tags, **{"embedding_dim": 16, "hidden_dim": 12} | sizes).eval()
    with torch.no_grad():
        model.hidden2tag.weight.mul_(8)
        for parameter in model.crf.parameters():
            parameter.uniform_(-1, 1)
    return model


def publish(model: TutorialTagger, folder: Path, tags: list[str] = TAGS, weights="pytorch_model.bin", **fields) -> Path:
    """A folder as the tutorial leaves it; `fields` take the place of those in the configuration."""
    folder.mkdir(exist_ok=True)
    config = {
        "model_type": "BiLSTM_CRF",
        "vocab_size": model.word_embeds.num_embeddings,
        "embedding_dim": model.word_embeds.embedding_dim,
        "hidden_dim": model.hidden2tag.in_features,
        "tag_to_ix": {tag: i for i, tag in enumerate(tags)},
        "transformers_version": "4.30.2",
        "auto_map": {"AutoModel": "model.BiLSTM_CRF"},
    }
    (folder / "config.json").write_text(json.dumps(config | fields), encoding="utf-8")
    torch.save(model.state_dict(), folder / weights)
    return folder


@pytest.fixture
def source(wordpiece, tmp_path) -> Path:
    return publish(new_tutorial_tagger(len(wordpiece)), tmp_path / "tutorial")


@torch.no_grad()
def emissions_of(model: BiLSTMCRFForTokenClassification, batch) -> torch.Tensor:
    return model.classifier(model.bilstm(**batch).last_hidden_state)


# ---------------------------------------------------------------- what it says


@pytest.mark.parametrize("num_layers", [1, 2])
@pytest.mark.parametrize("weights", ["pytorch_model.bin", "model.pth", "BiLSTM_CRF.bin"])
def test_emissions_are_the_tutorials(wordpiece, sentences, tmp_path, num_layers, weights):
    tutorial = new_tutorial_tagger(len(wordpiece), num_layers=num_layers)
    wordpiece.save_pretrained(tmp_path / "tutorial")
    convert_checkpoint(publish(tutorial, tmp_path / "tutorial", weights=weights), tmp_path / "ours")
    model = AutoModelForTokenClassification.from_pretrained(tmp_path / "ours").eval()
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "ours")
    together = tokenizer(sentences, padding=True, return_tensors="pt")
    in_a_batch = emissions_of(model, together)
    for row, sentence in enumerate(sentences):
        batch = wordpiece(sentence, return_tensors="pt")
        expected = tutorial.emissions(batch["input_ids"])
        torch.testing.assert_close(emissions_of(model, batch), expected, atol=1e-5, rtol=0)
        torch.testing.assert_close(in_a_batch[row, : expected.shape[1]], expected[0], atol=1e-5, rtol=0)


@pytest.mark.parametrize("tags", [TAGS, ["O", "PS", "LC", "<START>", "<STOP>", "<PAD>"]], ids=["BIO", "no scheme"])
def test_best_paths_are_the_tutorials(wordpiece, sentences, tmp_path, tags):
    """Also those that BIO would not allow. [CLS] and [SEP] have tags too."""
    tutorial = new_tutorial_tagger(len(wordpiece), tags)
    convert_checkpoint(publish(tutorial, tmp_path / "tutorial", tags), tmp_path / "ours")
    model = AutoModelForTokenClassification.from_pretrained(tmp_path / "ours").eval()
    assert model.config.id2label == dict(enumerate(tags))
    together = model(**wordpiece(sentences, padding=True, return_tensors="pt")).predictions
    for row, sentence in enumerate(sentences):
        batch = wordpiece(sentence, return_tensors="pt", return_token_type_ids=False)
        (path,) = tutorial(**batch)
        assert model(**batch).predictions.tolist() == [path]
        assert together[row, : len(path)].tolist() == path


def test_tags_keep_their_numbers_in_whatever_order_they_are_listed(wordpiece, tmp_path):
    numbers = {"I-PS": 2, "O": 0, "B-PS": 1}
    tutorial = new_tutorial_tagger(len(wordpiece), ["O", "B-PS", "I-PS"])
    convert_checkpoint(publish(tutorial, tmp_path / "tutorial", tag_to_ix=numbers), tmp_path / "ours")
    config = BiLSTMCRFForTokenClassification.from_pretrained(tmp_path / "ours").config
    assert config.label2id == numbers
    assert config.id2label == {0: "O", 1: "B-PS", 2: "I-PS"}


@pytest.mark.slow
def test_folder_works_without_the_package(wordpiece, sentences, source, tmp_path):
    wordpiece.save_pretrained(source)
    convert_checkpoint(source, tmp_path / "ours")
    assert (tmp_path / "ours" / "model.safetensors").is_file()
    emissions, predictions, entities = run_without_package(
        f"""
        import json
        from transformers import AutoModelForTokenClassification, AutoTokenizer, pipeline
        model = AutoModelForTokenClassification.from_pretrained("./ours", trust_remote_code=True).eval()
        tokenizer = AutoTokenizer.from_pretrained("./ours", trust_remote_code=True)
        batch = tokenizer({sentences[0]!r}, return_tensors="pt")
        emissions = model.classifier(model.bilstm(**batch).last_hidden_state)
        entities = pipeline("token-classification", model="./ours", trust_remote_code=True)({sentences!r})
        print(json.dumps([emissions.tolist(), model(**batch).predictions.tolist(), entities]))
        """,
        tmp_path,
    )
    batch = wordpiece(sentences[0], return_tensors="pt")
    tutorial = new_tutorial_tagger(len(wordpiece))
    expected = tutorial.emissions(batch["input_ids"])
    torch.testing.assert_close(torch.tensor(emissions), expected, atol=1e-5, rtol=0)
    ours = BiLSTMCRFForTokenClassification.from_pretrained(tmp_path / "ours").eval()
    assert predictions == ours(**batch).predictions.tolist() == tutorial(batch["input_ids"], batch["attention_mask"])
    assert sum(map(len, entities)) > len(sentences) / 2
    assert all(e["word"] == text[e["start"] : e["end"]] for text, row in zip(sentences, entities) for e in row)


# ---------------------------------------------------------------- tokenizers, sources


def test_the_tokenizer_may_be_named_or_left_out(wordpiece, source, tmp_path):
    wordpiece.save_pretrained(tmp_path / "tokenizer")
    convert_checkpoint(source, tmp_path / "named", str(tmp_path / "tokenizer"))
    assert AutoTokenizer.from_pretrained(tmp_path / "named").get_vocab() == wordpiece.get_vocab()
    named = BiLSTMCRFForTokenClassification.from_pretrained(tmp_path / "named").config
    assert (named.pad_token_id, named.special_token_ids) == (wordpiece.pad_token_id, [])
    convert_checkpoint(source, tmp_path / "without")
    assert not list((tmp_path / "without").glob("*tokenizer*.json"))
    assert BiLSTMCRFForTokenClassification.from_pretrained(tmp_path / "without").config.pad_token_id is None


def test_what_trainer_leaves_beside_the_weights_is_not_read(source, tmp_path):
    (source / "training_args.bin").write_bytes(b"")
    (source / "pytorch_model.bin").rename(source / "model.pth")
    convert_checkpoint(source, tmp_path / "ours")


def test_source_may_be_a_name_on_the_hub(source, tmp_path, monkeypatch):
    monkeypatch.setattr(legacy_checkpoint, "snapshot_download", lambda name, **_: {"someone/bilstm-crf": source}[name])
    convert_checkpoint("someone/bilstm-crf", tmp_path / "ours")
    assert (tmp_path / "ours" / "config.json").is_file()


# ---------------------------------------------------------------- what is refused


def assert_refused(
    source: Path, message: str, error: type[Exception] = ValueError, tokenizer: str | None = None
) -> None:
    """With this message, and without a trace in the folder of the output."""
    output = source.parent / "outputs" / "ours"
    with pytest.raises(error, match=message):
        convert_checkpoint(source, output, tokenizer)
    assert not output.parent.exists()


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"model_type": "bert"}, "config.json: model_type is bert, expected BiLSTM_CRF"),
        ({"hidden_dim": 13}, "config.json: hidden_dim is 13, expected an even number"),
        ({"hidden_dim": None}, "config.json: hidden_dim is None, expected a positive integer"),
        ({"embedding_dim": "16"}, "config.json: embedding_dim is 16, expected a positive integer"),
        ({"vocab_size": 0}, "config.json: vocab_size is 0, expected a positive integer"),
        ({"vocab_size": 10**12}, "config.json: vocab_size is 1000000000000, expected a positive integer below"),
        ({"vocab_size": 2**31 - 1}, r"word_embeds.weight has the shape \(500, 16\), .* \(2147483647, 16\)"),
        ({"hidden_dim": 2**30}, r"pytorch_model.bin: hidden2tag.weight has the shape"),
        ({"tag_to_ix": None}, "config.json: tag_to_ix is None, expected a mapping"),
        ({"tag_to_ix": {}}, "config.json: tag_to_ix is {}, expected a mapping"),
        ({"tag_to_ix": {"O": 1, "B-PS": 2}}, "config.json: tag_to_ix is .*expected a mapping of tags to 0, 1, 2"),
        ({"tag_to_ix": {"O": 0, "B-PS": 0}}, "config.json: tag_to_ix is .*each once"),
        ({"tag_to_ix": {"O": False, "B-PS": True}}, "config.json: tag_to_ix"),
        ({"vocab_size": 499}, r"pytorch_model.bin: word_embeds.weight has the shape \(500, 16\), .* \(499, 16\)"),
        ({"hidden_dim": 24}, r"pytorch_model.bin: hidden2tag.weight has the shape \(7, 12\), .* \(7, 24\)"),
        (
            {"tag_to_ix": {"O": 0, "B-PS": 1}},
            r"hidden2tag.weight has the shape \(7, 12\), .* \(2, 12\)",
        ),
    ],
    ids=str,
)
def test_configurations_that_are_refused(tmp_path, fields, message):
    assert_refused(publish(new_tutorial_tagger(500), tmp_path / "tutorial", **fields), message)


@pytest.mark.parametrize(
    "content", ["{", "[]", "\udcff", "[" * 10**5, '{"vocab_size": 1, "vocab_size": 2}', '{"a": NaN}']
)
def test_configurations_that_are_no_objects_are_refused(source, content):
    (source / "config.json").write_text(content, encoding="utf-8", errors="surrogateescape")
    assert_refused(source, "config.json: (not JSON|model_type is None)")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda state: state.pop("crf.transitions"), "missing keys: crf.transitions; unknown keys: none"),
        (lambda state: state.update(extra=torch.ones(1)), "missing keys: none; unknown keys: extra"),
        (
            lambda state: [state.pop(key) for key in list(state) if key.endswith("_reverse")],
            "missing keys: lstm.bias_hh_l0_reverse, .*a bidirectional LSTM",
        ),
        (lambda state: [state.pop(key) for key in list(state) if "lstm" in key], "missing keys: lstm.bias_hh_l0, "),
        (lambda state: state.update(epoch=3), "epoch is a int, not a tensor"),
        (lambda state: state.update({"a": torch.ones(1).expand(10**12)}), "a claims 1,000,000,000,000 elements, which"),
        (lambda state: state["crf.transitions"].fill_(torch.nan), "crf.transitions has elements that are NaN"),
    ],
    ids=["missing", "unknown", "one direction", "no LSTM", "no tensor", "huge", "not finite"],
)
def test_weights_that_are_refused(source, change, message):
    state = torch.load(source / "pytorch_model.bin", weights_only=True)
    change(state)
    torch.save(state, source / "pytorch_model.bin")
    assert_refused(source, f"pytorch_model.bin: {message}")


class Payload:
    """Unpickled as anything may be, it makes a file."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def __reduce__(self):
        return os.system, (f"touch {self.file}",)


def test_pickles_that_could_run_code_are_refused_and_not_run(source, tmp_path):
    torch.save({"word_embeds.weight": Payload(tmp_path / "ran")}, source / "pytorch_model.bin")
    assert_refused(source, "the file is damaged, or contains more than tensors, which could run code")
    assert not (tmp_path / "ran").exists()
    torch.load(source / "pytorch_model.bin", weights_only=False)  # the payload is a live one
    assert (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    "damage", [lambda data: b"", lambda data: data[:1000], lambda data: b"version https://git-lfs"]
)
def test_damaged_weights_are_refused(source, damage):
    file = source / "pytorch_model.bin"
    file.write_bytes(damage(file.read_bytes()))
    assert_refused(source, "pytorch_model.bin: the file is damaged")


def test_a_tensor_alone_is_refused(source):
    torch.save(torch.ones(2), source / "pytorch_model.bin")
    assert_refused(source, "pytorch_model.bin: contains a Tensor: save the model with")


def test_weights_that_are_missing_or_several_are_refused(source):
    (source / "pytorch_model.bin").rename(source / "a.pth")
    (source / "b.bin").touch()
    assert_refused(source, "expected pytorch_model.bin, or one .*; found a.pth, b.bin", FileNotFoundError)
    (source / "a.pth").unlink()
    (source / "b.bin").unlink()
    assert_refused(source, "found none", FileNotFoundError)


def test_a_source_that_is_nowhere_is_refused(tmp_path):
    assert_refused(tmp_path / "nowhere", "neither a folder nor a model that the Hub provides", OSError)


def test_a_tokenizer_of_another_model_is_refused(wordpiece, tmp_path):
    wordpiece.save_pretrained(tmp_path / "tokenizer")
    source = publish(new_tutorial_tagger(len(wordpiece) - 1), tmp_path / "tutorial")
    size = len(wordpiece) - 1
    assert_refused(
        source, f"vocab_size is {size}, but the tokenizer has ids up to {size}", tokenizer=str(tmp_path / "tokenizer")
    )


def test_an_output_that_is_there_is_left_alone(source, tmp_path):
    (tmp_path / "ours").mkdir()
    convert_checkpoint(source, tmp_path / "ours")  # empty until now
    before = sorted(tmp_path.rglob("*"))
    for output in (tmp_path / "ours", source / "config.json"):
        with pytest.raises(FileExistsError, match="exists already"):
            convert_checkpoint(source, output)
    assert sorted(tmp_path.rglob("*")) == before


def test_nothing_is_left_of_a_conversion_that_fails_half_way(wordpiece, source, tmp_path, monkeypatch):
    wordpiece.save_pretrained(source)
    before = sorted(tmp_path.rglob("*"))

    def fail(*_, **__):
        raise OSError("no space left on device")

    monkeypatch.setattr(PreTrainedTokenizerFast, "save_pretrained", fail)
    with pytest.raises(OSError, match="no space"):
        convert_checkpoint(source, tmp_path / "ours")
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.slow
def test_the_recipe_converts_and_says_what_is_wrong(wordpiece, source, tmp_path):
    wordpiece.save_pretrained(tmp_path / "tokenizer")
    recipe = [sys.executable, RECIPES / "convert_checkpoint.py"]
    options = {"cwd": tmp_path, "capture_output": True, "text": True, "check": False}
    done = subprocess.run([*recipe, "tutorial", "ours", "--tokenizer", "tokenizer"], **options)
    assert (done.returncode, done.stdout) == (0, "saved in ours\n"), done.stderr
    assert {"config.json", "model.safetensors", "modeling_bilstm_crf.py", "tokenizer.json"} <= {
        file.name for file in (tmp_path / "ours").iterdir()
    }
    alone = subprocess.run([*recipe, "tutorial", "alone"], **options)
    assert alone.stdout.startswith("saved in alone\nit has no tokenizer")
    (source / "config.json").write_text("{}")
    refused = subprocess.run([*recipe, "tutorial", "theirs"], **options)
    assert refused.returncode == 2
    assert refused.stderr.splitlines()[-1].endswith(
        "error: tutorial/config.json: model_type is None, expected BiLSTM_CRF as in the tutorial's models"
    )
    assert not (tmp_path / "theirs").exists()
