"""Every configuration of the recipes, with a tiny encoder in place of the one it names, on a few sentences."""

import importlib
import json
from pathlib import Path

import pytest
import torch
import yaml
from datasets import Dataset
from transformers import AutoTokenizer, BertConfig, BertModel, pipeline

from bilstm_crf_hf import BiLSTMCRFConfig, BiLSTMCRFModel
from bilstm_crf_hf.commands.benchmark_models import MAX_LENGTH, TUTORIAL
from bilstm_crf_hf.data.ner import load_ner_datasets
from bilstm_crf_hf.data.splits import SourceArguments
from bilstm_crf_hf.data.tokenization import build_character_tokenizer
from bilstm_crf_hf.training.arguments import CardArguments, ModelArguments, TaggerTrainingArguments, parse_arguments
from bilstm_crf_hf.training.loading import checked_overrides

pytestmark = pytest.mark.slow

RECIPES = Path(__file__).parents[2] / "recipes"
CONFIGS = {path.stem: yaml.safe_load(path.read_text("utf-8")) for path in (RECIPES / "configs").glob("*.yaml")}
SWEEP = CONFIGS.pop("klue_ner_sweep")
CHAIN = ["pretrain", "klue_ner_teacher", "klue_ner_distilled"]
STUDENTS = ["emotion_distilled", "nsmc_distilled"]
OTHER_LANGUAGES = ["conll2002_nl", "conll2003", "stockmark_ja", "wnut17"]
TAGGERS = sorted(name for name in CONFIGS.keys() - set(CHAIN) if "ner" in name or name in ["sample", *OTHER_LANGUAGES])
CLASSIFIERS = sorted(CONFIGS.keys() - set(TAGGERS) - set(CHAIN) - set(STUDENTS))
NAMES = ("model_name_or_path", "tokenizer_name", "embeddings_from")


def import_command(recipe: str):
    """Import the module of the command that a launcher runs."""
    name = {"sequence_classification": "classify"}.get(recipe, recipe)
    return importlib.import_module(f"bilstm_crf_hf.commands.{name}")


def sample(folder: str, suffix: str) -> dict[str, Path]:
    return {split: RECIPES / "data" / folder / f"{split}.{suffix}" for split in ("train", "validation")}


@pytest.fixture(scope="module")
def encoder(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("encoder")
    tokenizer = build_character_tokenizer(load_ner_datasets(data_files=sample("ner", "txt"))["train"]["text"])
    torch.manual_seed(0)
    shape = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
    BertModel(BertConfig(vocab_size=len(tokenizer), **shape)).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture
def train(encoder, tmp_path, monkeypatch):
    """A function that runs a recipe with a configuration."""

    def run(recipe: str, name: str, files: dict[str, Path], **changes) -> None:
        options = {f"{split}_file": path for split, path in files.items()}
        options |= dict.fromkeys(CONFIGS[name].keys() & set(NAMES), encoder)
        options |= {"num_train_epochs": 1, "max_train_samples": 32, "max_eval_samples": 8, "report_to": "none"}
        options |= {"output_dir": tmp_path / "out", "use_cpu": True} | changes
        arguments = [str(part) for key, value in options.items() for part in (f"--{key}", value)]
        import_command(recipe).main([str(RECIPES / "configs" / f"{name}.yaml"), *arguments])
        results = json.loads((Path(options["output_dir"]) / "all_results.json").read_text("utf-8"))
        assert results["seed"] == CONFIGS[name].get("seed", 42)
        assert results["validation_sentences"] == 8

    return run


@pytest.mark.parametrize("name", TAGGERS)
def test_a_configuration_trains_and_leaves_a_model_that_tags(name, train, encoder, tmp_path):
    if "read_morphemes" in CONFIGS[name]:
        pytest.importorskip("kiwipiepy")
    files = sample("ner", "txt")
    if "test_split_percentage" in CONFIGS[name]:
        del files["validation"]  # it is drawn from the train split, too
    elif CONFIGS[name].get("do_predict"):
        files["test"] = files["validation"]
    train("ner", name, files)
    tagger = pipeline("token-classification", str(tmp_path / "out"), trust_remote_code=True)
    assert isinstance(tagger("손흥민은 춘천에서 태어났다."), list)
    if "embeddings_from" in CONFIGS[name]:
        weight = tagger.model.get_input_embeddings().weight.detach()
        rows = BertModel.from_pretrained(encoder).get_input_embeddings().weight.detach()
        frozen = CONFIGS[name].get("freeze_embeddings", False)
        assert torch.allclose(weight, rows / rows.square().mean().sqrt()) == frozen


@pytest.mark.parametrize("name", CLASSIFIERS)
def test_a_configuration_trains_and_leaves_a_model_that_classifies(name, train, tmp_path):
    train("sequence_classification", name, sample("emotion" if "emotion" in name else "sentiment", "tsv"))
    classifier = pipeline("text-classification", str(tmp_path / "out"), trust_remote_code=True)
    classes = {"기쁨", "슬픔", "분노", "불안", "상처", "당황"} if "emotion" in name else {"부정", "긍정"}
    answers = classifier("면접에 합격해서 정말 기뻐", top_k=None)
    assert {answer["label"] for answer in answers} == classes
    assert sum(answer["score"] for answer in answers) == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize("name", STUDENTS)
def test_a_configuration_has_a_classifier_learn_from_those_of_others(name, train, encoder, tmp_path, monkeypatch):
    """Train the teachers with their configurations first, and start from a pretrained body."""
    monkeypatch.chdir(tmp_path)
    files = sample("emotion" if "emotion" in name else "sentiment", "tsv")
    origin = {CONFIGS[classifier]["output_dir"]: classifier for classifier in CLASSIFIERS}
    for teacher in CONFIGS[name]["teachers"]:
        train("sequence_classification", origin[teacher], files, output_dir=teacher)
    tokenizer = AutoTokenizer.from_pretrained(encoder)
    pretrained = CONFIGS["pretrain"]["output_dir"]
    for part in (BiLSTMCRFModel.from_tokenizer(tokenizer, ngram_buckets=256), tokenizer):
        part.save_pretrained(pretrained)
    Dataset.from_dict({"text": ["정말 재미있는 영화였다", "지루했다"]}).to_parquet("reviews.parquet")
    train("distill_classifier", name, files, model_name_or_path=pretrained)
    classifier = pipeline("text-classification", str(tmp_path / "out"), trust_remote_code=True)
    teacher = pipeline("text-classification", CONFIGS[name]["teachers"][0], trust_remote_code=True)
    assert classifier.model.config.label2id.keys() == teacher.model.config.label2id.keys()
    assert classifier.model.config.ngram_buckets == 256


def test_the_benchmark_has_the_model_of_the_tutorials_configuration():
    tutorial = CONFIGS["klue_ner_blog"]
    assert tutorial["config_overrides"] == TUTORIAL
    assert tutorial["max_seq_length"] == MAX_LENGTH


@pytest.mark.parametrize("name", SWEEP["runs"])
def test_a_run_of_the_sweep_has_valid_arguments(name, tmp_path, monkeypatch):
    runs = import_command("sweep").read_sweep(RECIPES / "configs" / "klue_ner_sweep.yaml")
    path = tmp_path / "run.yaml"
    path.write_text(yaml.safe_dump(runs[name]), encoding="utf-8")
    parts = (ModelArguments, SourceArguments, CardArguments, TaggerTrainingArguments)
    model_arguments, *_ = parse_arguments(parts, [str(path), "--use_cpu", "true"])
    BiLSTMCRFConfig(**checked_overrides(model_arguments, BiLSTMCRFConfig))


def test_the_chain_from_raw_text_to_the_distilled_tagger(encoder, tmp_path, monkeypatch):
    """Run pretraining, teacher and student one after the other; each reads the output of those before."""
    pytest.importorskip("kiwipiepy")
    monkeypatch.chdir(tmp_path)
    texts = load_ner_datasets(data_files=sample("ner", "txt"))["train"]["text"][:64]
    Path("raw.txt").write_text("\n".join(texts), encoding="utf-8")
    short = {"use_cpu": True, "max_steps": 2, "report_to": "none"}
    splits = {f"{split}_file": path for split, path in sample("ner", "txt").items()}
    splits |= {"max_train_samples": 32, "max_eval_samples": 8}
    runs = {
        "pretrain": ("pretrain", {"input_file": "raw.txt", "validation_texts": 8, "min_frequency": 1}),
        "klue_ner_teacher": ("ner", {"model_name_or_path": encoder, **splits}),
        "klue_ner_distilled": (
            "distill",
            {
                "teachers": CONFIGS["klue_ner_teacher"]["output_dir"],
                "unlabeled_file": "raw.txt",
                "variants": 1,
                **splits,
            },
        ),
    }
    for name in CHAIN:
        recipe, options = runs[name]
        module = import_command(recipe)
        if hasattr(module, "dictionary_names"):
            monkeypatch.setattr(module, "dictionary_names", lambda: ["더글러스 애덤스", "춘천"])
        if hasattr(module, "similar_names"):
            monkeypatch.setattr(module, "similar_names", lambda mentions: {name: [["춘천"]] for name in mentions})
        arguments = [str(part) for key, value in (options | short).items() for part in (f"--{key}", value)]
        module.main([str(RECIPES / "configs" / f"{name}.yaml"), *arguments])
    folder = Path(CONFIGS["klue_ner_distilled"]["output_dir"])
    tagger = pipeline("token-classification", str(folder), trust_remote_code=True)
    assert isinstance(tagger("손흥민은 춘천에서 태어났다."), list)
    pretrained = BiLSTMCRFModel.from_pretrained(CONFIGS["pretrain"]["output_dir"])
    assert tagger.model.config.ngrams == pretrained.config.ngrams == CONFIGS["pretrain"]["config_overrides"]["ngrams"]
    assert tagger.model.config.locked_dropout == CONFIGS["klue_ner_distilled"]["config_overrides"]["locked_dropout"]
