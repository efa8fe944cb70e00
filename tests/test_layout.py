"""The layout of the package: its root is what a saved model takes along, and imports run one way."""

import ast
import re
import sys
from configparser import ConfigParser
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest
from conftest import LABELS, new_tagger
from transformers import AutoTokenizer, BertConfig, BertModel

import bilstm_crf_hf
from bilstm_crf_hf import (
    BiLSTMForPreTraining,
    BiLSTMForSequenceClassification,
    CharacterEncoderForTokenClassification,
    EncoderCRFForTokenClassification,
    EncoderForSequenceClassification,
)
from bilstm_crf_hf.evaluation.tasks import label_maps
from bilstm_crf_hf.hub.publishing import CODE

ROOT = Path(bilstm_crf_hf.__file__).parent
ROOT_FILES = {path.name for path in ROOT.glob("*.py")} - {"__init__.py"}

ALLOWED = {
    "": set(),
    "utils": {""},
    "models": {""},
    "data": {"", "utils"},
    "inference": {"", "utils", "models", "data"},
    "evaluation": {"", "utils", "data", "inference"},
    "hub": {"", "utils", "models", "data", "inference", "evaluation"},
    "training": {"", "utils", "models", "data", "inference", "evaluation"},
    "commands": {"", "utils", "models", "data", "inference", "evaluation", "hub", "training"},
}
"""The packages that a package may import beside itself; the empty name is the root without `__init__.py`."""


@pytest.fixture(scope="module")
def models(tokenizer, tmp_path_factory) -> list:
    """One model of each class with a head."""
    encoder, bilstm = tmp_path_factory.mktemp("encoder"), tmp_path_factory.mktemp("bilstm")
    shape = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1, "intermediate_size": 8}
    BertModel(BertConfig(vocab_size=len(tokenizer), **shape)).save_pretrained(encoder)
    tokenizer.save_pretrained(encoder)
    tagger = new_tagger(tokenizer)
    tagger.bilstm.save_pretrained(bilstm)
    tokenizer.save_pretrained(bilstm)
    names = label_maps(LABELS)
    small = {"embedding_size": 8, "hidden_size": 8, "ngram_buckets": 16, "ngram_embedding_size": 8} | names
    heads = (EncoderCRFForTokenClassification, EncoderForSequenceClassification)
    return [
        tagger,
        *(cls.from_tokenizer(tokenizer, **small) for cls in (BiLSTMForSequenceClassification, BiLSTMForPreTraining)),
        *(head.from_encoder(str(encoder), tokenizer, **names) for head in heads),
        CharacterEncoderForTokenClassification.from_encoder(
            str(encoder), AutoTokenizer.from_pretrained(bilstm), **names
        ),
    ]


def test_saved_models_take_along_the_root_of_the_package_and_nothing_else(models, tmp_path):
    exported = set()
    for number, model in enumerate(models):
        model.save_pretrained(tmp_path / str(number))
        files = {path.relative_to(tmp_path / str(number)) for path in (tmp_path / str(number)).rglob("*.py")}
        assert files, type(model).__name__
        exported |= {path.as_posix() for path in files}
    assert exported == ROOT_FILES == CODE


def imported_modules(path: Path) -> set[str]:
    """The modules of the package that a file imports, also inside functions, as paths from its root."""
    package = ("bilstm_crf_hf", *path.relative_to(ROOT).parent.parts)
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = ".".join(package[: len(package) + 1 - node.level]) if node.level else ""
            module = ".".join(filter(None, (base, node.module)))
            found |= {f"{module}.{alias.name}" for alias in node.names}
    return {name.partition(".")[2] for name in found if name.split(".")[0] == "bilstm_crf_hf"}


def package_of(module: str) -> str:
    """The package of a module; the empty name for a module, or a name, of the root."""
    first = module.partition(".")[0]
    return first if (ROOT / first / "__init__.py").is_file() and first else ""


@pytest.mark.parametrize("package", ALLOWED)
def test_imports_run_one_way(package):
    files = (ROOT / package).rglob("*.py") if package else map(ROOT.joinpath, ROOT_FILES)
    upward = {
        f"{path.relative_to(ROOT)} imports {module}"
        for path in files
        for module in imported_modules(path)
        if package_of(module) not in ALLOWED[package] | {package}
    }
    assert not upward


@pytest.mark.skipif(sys.version_info < (3, 11), reason="packages_distributions is incomplete in Python 3.10")
def test_third_party_modules_are_declared():
    """Compare the imports at the top of modules with the requirements and extras of setup.cfg."""
    setup = ConfigParser()
    setup.read(ROOT.parent / "setup.cfg", encoding="utf-8")
    listed = "\n".join([setup["options"]["install_requires"], *dict(setup.items("options.extras_require")).values()])
    declared = {name.lower().replace("_", "-") for name in re.findall(r"^[\w-]+", listed, re.MULTILINE)}
    distributions = packages_distributions()
    undeclared = {
        f"{path.relative_to(ROOT)} imports {module}"
        for path in ROOT.rglob("*.py")
        for node in ast.parse(path.read_text(encoding="utf-8")).body
        for module in top_level_modules(node)
        if not declared & {name.lower().replace("_", "-") for name in distributions[module]}
    }
    assert not undeclared


def top_level_modules(node: ast.stmt) -> set[str]:
    """The first parts of the names of the third-party modules that a statement at the top of a module imports."""
    names = [node.module] if isinstance(node, ast.ImportFrom) and not node.level else []
    if isinstance(node, ast.Import):
        names = [alias.name for alias in node.names]
    return {name.partition(".")[0] for name in names} - sys.stdlib_module_names


def test_each_package_has_its_place_in_the_order_of_imports():
    assert {path.parent.name for path in ROOT.glob("*/__init__.py")} == set(ALLOWED) - {""}
