"""The documentation: length of README, its tables and script, links, figures, and the first words of docstrings."""

import ast
import os
import re
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
from corpora import read_corpus

from bilstm_crf_hf.alignment import spans_from_tags
from bilstm_crf_hf.commands.__main__ import COMMANDS
from bilstm_crf_hf.data import layouts, ner

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
KOREAN = (ROOT / "README.ko.md").read_text(encoding="utf-8")
LAUNCHERS = sorted(path for path in (ROOT / "recipes").glob("*.py"))
PAGES = sorted(
    path
    for path in ROOT.rglob("*.md")
    if not re.search(r"(^|/)(\.|outputs/|build/)|template", path.relative_to(ROOT).as_posix())
)
FIGURE_PAGES = ("README.md", "model_cards/RESULTS.md", "model_cards/README.md", "recipes/README.md", "CHANGELOG.md")
MODULES = sorted((ROOT / "bilstm_crf_hf").rglob("*.py"))

FRAGMENTS = set(
    re.findall(
        r"\w+",
        """
        As At Builds By Checks Creates For From Gives Goes How If In Into Keeps Leaves Likewise Loads Makes Moves
        Not Of Or Out Prints Publishes Reads Returns Runs So Than That They This Those To Trains Turns What When
        Where Whether Which Who Whose Why With Within Without Writes
        """,
    )
)
"""First words that make the docstring of a class, a module or a constant a fragment instead of a noun phrase."""

VERBS = set(
    re.findall(
        r"\w+",
        """
        Add Align Allocate Analyze Append Apply Arrange Ask Assign Attach Average Build Calculate Check Choose Classify
        Clean Clear Clip Cluster Collate Collect Combine Compare Compile Compute Concatenate Configure Construct Convert
        Copy Count Create Decode Delete Derive Describe Detach Detect Determine Discard Distil Divide Do Download Draw
        Drop Embed Encode Ensure Enter Escape Estimate Evaluate Exchange Expand Export Extend Extract Fill Filter Find
        Finish Fit Flatten Format Freeze Gather Generate Give Group Handle Ignore Infer Initialize Insert Interleave
        Iterate Join Keep Let List Load Locate Log Make Mark Match Measure Merge Move Multiply Name Normalize Open Pack
        Pad Pair Parse Pick Plot Predict Prepare Print Publish Raise Read Reduce Refuse Register Remove Rename Render
        Repeat Replace Reset Resolve Restore Return Reverse Run Save Select Send Serialize Serve Set Show Shuffle Sort
        Split Start Stop Store Strip Subtract Sum Summarize Tag Tokenize Train Transform Translate Turn Unpack Update
        Upload Validate Verify Wait Warn Work Wrap Write Yield
        """,
    )
)
"""First words of the docstrings of functions, methods and properties; add a verb that is missing."""


def blocks(page: str, language: str = "") -> list[str]:
    """Return the code blocks of a page in `language`."""
    found = re.findall(r"^```(\w*)\n(.*?)^```", page, flags=re.MULTILINE | re.DOTALL)
    return [code for name, code in found if name == language]


def prose(page: str) -> str:
    """Return a page without its code blocks."""
    return re.sub(r"^```.*?^```$", "", page, flags=re.MULTILINE | re.DOTALL)


def tables(page: str) -> list[list[list[str]]]:
    """Return the cells of the tables of a page, the headings included."""
    found: list[list[list[str]]] = [[]]
    for line in prose(page).splitlines():
        if " | " in line:
            found[-1].append([cell.strip() for cell in line.strip("| ").split(" | ")])
        elif found[-1] and not set(line) <= set("|-: "):
            found.append([])
    return [table for table in found if table]


# ---------------------------------------------------------------- README


def test_readme_has_at_most_900_words():
    assert len(README.split()) <= 900


def test_the_korean_readme_has_the_same_sections_tables_code_and_figures():
    for pattern in (r"^(#+) ", r"\]\(([^)#]+)", r"\b\d\.\d{4}\b", r"\*\*"):
        translated = [match for match in re.findall(pattern, KOREAN, re.MULTILINE) if match != "README.md"]
        assert translated == [match for match in re.findall(pattern, README, re.MULTILINE) if match != "README.ko.md"]
    assert [[len(row) for row in table] for table in tables(KOREAN)] == [
        [len(row) for row in table] for table in tables(README)
    ]
    for language in ("bash", "bibtex"):
        assert blocks(KOREAN, language) == blocks(README, language)
    for ours, theirs in zip(blocks(README, "python"), blocks(KOREAN, "python"), strict=True):
        assert ast.dump(ast.parse(ours)) == ast.dump(ast.parse(theirs))


@pytest.mark.parametrize("page", [README, KOREAN], ids=["README.md", "README.ko.md"])
def test_every_launcher_and_command_is_in_the_table_of_recipes(page):
    rows = next(table for table in tables(page) if any(row[0] == "`ner.py`" for row in table))[1:]
    assert sorted(row[0].strip("`") for row in rows) == [path.name for path in LAUNCHERS]
    assert sorted(row[1].strip("`") for row in rows if row[1] != "–") == sorted(COMMANDS)


def test_the_files_that_a_change_touches_exist():
    (table,) = (table for table in tables(README) if table[0] == ["Change", "Files"])
    files = [name for row in table[1:] for name in re.findall(r"`([\w/]+\.py)`", row[1])]
    assert len(files) > 8
    assert [name for name in files if not (ROOT / "bilstm_crf_hf" / name).is_file()] == []


def test_the_project_structure_names_every_package():
    tree = blocks(README)[-1]
    named = set(re.findall(r"^  (\w+)/", tree, re.MULTILINE))
    assert named == {path.parent.name for path in MODULES if path.parent.parent == ROOT / "bilstm_crf_hf"}
    assert all((ROOT / name).is_dir() for name in re.findall(r"^(\w+)/", tree, re.MULTILINE))


@pytest.mark.slow
def test_the_training_script_runs(tmp_path):
    sentences = "<손흥민:PS>은 <춘천:LC>에서 태어났다.\n<김연아:PS>는 <서울:LC>에 산다.\n비가 온다.\n"
    for split in ("train", "validation"):
        (tmp_path / f"{split}.txt").write_text(sentences * 4, encoding="utf-8")
    (script,) = (code for code in blocks(README, "python") if "Trainer(" in code)
    assert len(script.splitlines()) <= 30
    environment = os.environ | {"PYTHONPATH": str(ROOT), "HF_DATASETS_CACHE": str(tmp_path), "CUDA_VISIBLE_DEVICES": ""}
    options = {"cwd": tmp_path, "env": environment, "capture_output": True, "text": True}
    done = subprocess.run([sys.executable, "-c", script], **options, check=False)
    assert done.returncode == 0, done.stderr
    assert "F1 0." in done.stdout
    assert (tmp_path / "outputs/mine/model.safetensors").is_file()
    assert (tmp_path / "outputs/mine/tokenizer.json").is_file()


# ---------------------------------------------------------------- all pages


@pytest.mark.parametrize("page", PAGES, ids=[str(path.relative_to(ROOT)) for path in PAGES])
def test_relative_links_lead_to_files_and_headings(page):
    for target in re.findall(r"\]\(([^)\s]+)\)", prose(page.read_text(encoding="utf-8"))):
        if re.match(r"https?:|mailto:", target):
            continue
        name, _, heading = target.partition("#")
        file = page.parent / name if name else page
        assert file.exists(), target
        if heading:
            assert heading in anchors(file.read_text(encoding="utf-8")), target


def anchors(page: str) -> set[str]:
    """Return the anchors that GitHub gives the headings of a page."""
    headings = re.findall(r"^#+ (.+)$", prose(page), flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_each_score_is_written_once():
    """A standard deviation (behind ±) may be that of several scores."""
    scores = [
        (score, name)
        for name in FIGURE_PAGES
        for score in re.findall(r"(?<!± )\b0\.\d{3,4}\b", prose((ROOT / name).read_text(encoding="utf-8")))
    ]
    seen = [score for score, _ in scores]
    assert len(seen) > 50
    assert [pair for pair in scores if seen.count(pair[0]) > 1] == []


# ---------------------------------------------------------------- docstrings


def docstrings(path: Path) -> list[tuple[int, bool, str]]:
    """Return the line, whether it belongs to a function, and the text of each docstring of a module.

    A string under an assignment is the docstring of a constant.
    """
    found = []
    module = ast.parse(path.read_text(encoding="utf-8"))
    for node in ast.walk(module):
        body = getattr(node, "body", None)
        if not isinstance(body, list):
            continue
        is_function = isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        if isinstance(node, ast.Module | ast.ClassDef) or is_function:
            text = ast.get_docstring(node)
            if text:
                found.append((getattr(node, "lineno", 1), is_function, text))
        for before, after in zip(body, body[1:]):
            if isinstance(before, ast.Assign | ast.AnnAssign) and isinstance(after, ast.Expr):
                value = after.value
                if isinstance(value, ast.Constant) and isinstance(value.value, str):
                    found.append((after.lineno, False, value.value))
    return found


@pytest.mark.parametrize("path", MODULES, ids=[str(path.relative_to(ROOT)) for path in MODULES])
def test_docstrings_begin_with_a_verb_or_a_noun_phrase(path):
    """The docstring of a module in `commands/` is also a help text, which begins with a verb."""
    offenders = []
    is_command = path.parent.name == "commands"
    for line, is_function, text in docstrings(path):
        word, following = re.match(r"([\w'-]*) ?(\w*)", text).groups()
        is_verb = word in VERBS and following != "of"  # "Sum of the rows" is a noun phrase
        if not is_verb if is_function else word in FRAGMENTS or (is_verb and not (is_command and line == 1)):
            offenders.append(f"{path.name}:{line}: {text.splitlines()[0]}")
    assert offenders == []


def test_the_example_of_contributing_reads_its_format(tmp_path, monkeypatch):
    """The reader and its row of `LAYOUTS` run as they stand in CONTRIBUTING.md; errors name file and line."""
    page = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    reader, row = (textwrap.dedent(code) for code in re.findall(r"   ```python\n(.*?)   ```", page, re.DOTALL))
    namespace = vars(layouts).copy()
    exec(reader, namespace)
    (layout,) = eval(f"[{row}]", namespace)  # as it stands in the list
    assert isinstance(layout, layouts.Layout), row
    for module in (layouts, ner):
        monkeypatch.setattr(module, "LAYOUTS", (*layouts.LAYOUTS, layout))
    file = tmp_path / "corpus.slash"
    file.write_text("손흥민/B-PS 선수/O 춘천/B-LC 출신/O\n비가/O 온다/O\n", encoding="utf-8")
    dataset = read_corpus(file)
    assert dataset["text"][:] == ["손흥민 선수 춘천 출신", "비가 온다"]
    names = ner.labels_of(dataset)
    spans = spans_from_tags(names[i] for i in dataset["tags"][0])
    assert spans == [(0, 3, "PS"), (7, 9, "LC")]
    for line, problem in (("서울/B-LC 에", "'에' is not a tag"), ("서울/S-LC", "cannot stand here")):
        file.write_text(f"비가/O\n{line}\n서울/B-LC 역/I-LC 부산/B-LC\n", encoding="utf-8")
        with pytest.raises(ValueError, match=rf"corpus.slash:2: .*{problem}"):
            read_corpus(file)
