"""A fuzzer of all readers: `python tests/fuzzing.py OUTPUT SEED FIRST COUNT FORMAT...` reads mutated files.

Mutation `i` of a format depends on the seed and `i` alone. A reader may read a mutated file, or refuse it by a
ValueError with the file's name. A failure is anything else: another exception, a crash, a mutation that takes over
20 s, or rows that are neither read nor counted in the log. OUTPUT gets a line for each failure and for each finished
format, and the file `OUTPUT.now` has the present mutation, for the case that it ends the process.
"""

import faulthandler
import io
import json
import logging
import os
import re
import resource
import struct
import sys
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import NamedTuple

TIME_LIMIT, MEMORY_LIMIT, MAX_FAILURES = 20, 8 * 2**30, 5

Mutation = tuple[bytes, int | None]
"""A mutated file, and the number of its rows, or None where only its reader can tell it."""


class Format(NamedTuple):
    """A format: how a file of it is named, made and mutated, and a reader that returns its number of rows."""

    name: str
    files: Callable[[], list[bytes]]
    mutate: Callable[[Random, bytes], Mutation]
    read: Callable[[Path], int]


# ---------------------------------------------------------------- mutations

BYTES = b"\0\t\n\r \"',;:<>[]{}-./\\#_0123456789BIOxz\x1c\x7f\x80\xef\xff"
TOKENS = [
    *(b"null", b"NaN", b"-Infinity", b"1e999", b"true", b"[", b"{", b"}]", b'"', b'""', b"9" * 5000, b"[" * 2000),
    *(b'{"a":' * 1500, rb"\ud83d", rb"\u0000", b"\xef\xbb\xbf", b"\xff\xfe", b"\0\0", "\u2028\u0085".encode()),
    *("😀".encode(), "ᄒ".encode(), b"\r\n", b"\n\n", b"\t\t", b"\r", b",", b"NA", b"a" * 200_000),
]
NUMBERS = [
    b"\xff\xff\xff\x7f",
    b"\xff\xff\xff\xff",
    b"\0\0\0\0",
    b"\x80\x80\x80\x80",
    b"\0\0\0\x80",
    b"\xfe\xff\xff\xff\x0f",
]


def mutate_characters(random: Random, text: str) -> str:
    """Change, remove, insert or repeat some characters."""
    for _ in range(random.choice([1, 1, 2, 6])):
        i, j, size = random.randrange(len(text) + 1), random.randrange(len(text) + 1), random.choice([0, 1, 1, 2, 30])
        inserted = random.choice(["", text[j : j + size], chr(random.choice(BYTES[:-3])), random.choice(TOKENS)])
        if isinstance(inserted, bytes):
            inserted = inserted.decode(errors="ignore")
        text = text[:i] + inserted + text[i + size :]
    return text


def mutate_bytes(random: Random, data: bytes, low: int = 0, high: int | None = None) -> bytes:
    """Change, remove, insert or repeat some bytes in `[low, high)`."""
    changed = bytearray(data)
    for _ in range(random.choice([1, 1, 1, 2, 6])):
        end = len(changed) if high is None else min(high, len(changed))
        at = random.randrange(low, max(end, low + 1))
        size = random.choice([1, 1, 2, 4, 16, 200])
        kind = random.randrange(7)
        if kind == 0 and at < len(changed):
            changed[at] ^= 1 << random.randrange(8)
        elif kind == 1:
            changed[at : at + 1] = bytes([random.choice(BYTES)])
        elif kind == 2:
            del changed[at : at + size]
        elif kind == 3:
            changed[at:at] = random.choice(TOKENS)
        elif kind == 4:
            changed[at : at + 4] = random.choice(NUMBERS)
        elif kind == 5:
            start = random.randrange(low, max(end, low + 1))
            changed[at : at + size] = changed[start : start + size]
        elif random.random() < 0.2:
            del changed[at:]
    return bytes(changed)


def mutate_items(random: Random, items: list) -> list:
    """Repeat, remove or swap some items."""
    items = list(items)
    for _ in range(random.choice([1, 1, 2, 5])):
        i, j = random.randrange(len(items)), random.randrange(len(items))
        kind = random.randrange(3)
        if kind == 0:
            items.insert(i, items[j])
        elif kind == 1 and len(items) > 1:
            del items[i]
        else:
            items[i], items[j] = items[j], items[i]
    return items


def mutate_text(count: Callable[[bytes], int | None]) -> Callable[[Random, bytes], Mutation]:
    """Return a mutation of lines, characters or bytes, after which `count` counts the rows without the package."""

    def mutate(random: Random, data: bytes) -> Mutation:
        if random.random() < 0.4:
            data = b"".join(mutate_items(random, data.splitlines(keepends=True)))
        kind = random.random()
        if kind < 0.5:
            data = mutate_characters(random, data.decode()).encode()
        elif kind < 0.7:
            data = mutate_bytes(random, data)
        return data, count(data)

    return mutate


def mutate_binary(random: Random, data: bytes) -> Mutation:
    """Mutate some bytes."""
    return mutate_bytes(random, data), None


def mutate_parquet(random: Random, data: bytes) -> Mutation:
    """Mutate the footer, the pages or the whole; a file that can still be read must have all its rows."""
    footer = len(data) - 8 - int.from_bytes(data[-8:-4], "little")
    low, high = random.choice([(footer, len(data) - 8), (4, footer), (0, len(data))])
    changed = mutate_bytes(random, data, low, high)
    if low == footer and random.random() < 0.8:  # a footer that says how long it now is
        changed = changed[:-8] + max(len(changed) - 8 - footer, 0).to_bytes(4, "little") + changed[-4:]
    return changed, len(ROWS)


def mutate_xlsx(random: Random, data: bytes) -> Mutation:
    """Mutate the zip file, or a part inside it, in which rows can be repeated, removed and swapped."""
    if random.random() < 0.3:
        return mutate_bytes(random, data), len(ROWS)
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}
    sheet = next(name for name in parts if name.startswith("xl/worksheets/sheet"))
    count = None
    if random.random() < 0.4:
        head, *rows = re.split(rb"(?=<row )", parts[sheet])
        rows[-1], tail = rows[-1].split(b"</sheetData>")
        rows = mutate_items(random, rows)
        parts[sheet] = head + b"".join(rows) + b"</sheetData>" + tail
        count = len(rows) - 1
    else:
        name = random.choice([sheet, sheet, random.choice(list(parts))])
        parts[name] = mutate_bytes(random, parts[name])
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in parts.items():
            archive.writestr(name, content)
    return packed.getvalue(), count


# ---------------------------------------------------------------- files, made without the package

ROWS = [{"text": f"손흥민은 {i}년 춘천에서 😀 태어났다.", "label": "좋다" if i % 3 else "NA"} for i in range(16)]
WORDS = {f"낱말{i}": [i / 7, -i / 3, 0.5, 1e-5 * i] for i in range(12)}


def encoded(lines: list[str]) -> list[bytes]:
    """The lines with both kinds of ends."""
    return [(end.join(lines) + end).encode() for end in ("\n", "\r\n")]


def fields(separator: str) -> list[bytes]:
    return encoded([separator.join(row) for row in [ROWS[0].keys(), *(row.values() for row in ROWS)]])


def jsonl_files() -> list[bytes]:
    rows = [row | {"label": len(row["label"]), "extra": {"n": [i / 3, None, True]}} for i, row in enumerate(ROWS)]
    return [
        *encoded([json.dumps(row) for row in rows]),
        *encoded([json.dumps(row, ensure_ascii=False) for row in rows]),
    ]


def json_files() -> list[bytes]:
    talks = [{"profile": {"emotion": {"type": f"E{i}"}}, "talk": {"content": {"HS01": "왜?"}}} for i in range(10, 26)]
    return [
        file for rows in (ROWS, talks) for file in encoded(json.dumps(rows, ensure_ascii=False, indent=1).split("\n"))
    ]


def parquet_files() -> list[bytes]:
    import pyarrow as pa
    import pyarrow.parquet as pq
    from datasets import ClassLabel, Features, Value

    features = Features({"text": Value("string"), "label": ClassLabel(names=["NA", "좋다"])})
    labels = [row | {"label": features["label"].str2int(row["label"])} for row in ROWS]
    nested = [row | {"tokens": list(row["text"]), "n": {"a": [1.5, None]}} for row in ROWS]
    files = []
    for rows, schema in ((ROWS, None), (nested, None), (labels, features.arrow_schema)):
        for options in ({}, {"compression": "none", "use_dictionary": False}, {"write_page_checksum": True}):
            file = io.BytesIO()
            pq.write_table(pa.Table.from_pylist(rows, schema), file, row_group_size=6, **options)
            files.append(file.getvalue())
    return files


def xlsx_files() -> list[bytes]:
    from openpyxl import Workbook
    from raw_xlsx import xlsx

    cells = [list(ROWS[0]), *(list(row.values()) for row in ROWS)]
    files = [xlsx(cells)]
    for shared in (True, False):
        book = Workbook(write_only=not shared)
        sheet = book.active if shared else book.create_sheet()
        for row in cells:
            sheet.append(row)
        file = io.BytesIO()
        book.save(file)
        files.append(file.getvalue())
    return files


def word2vec_binary() -> list[bytes]:
    header = f"{len(WORDS)} 4\n".encode()
    rows = [word.encode() + b" " + struct.pack("<4f", *vector) for word, vector in WORDS.items()]
    return [header + b"".join(rows), header + b"".join(row + b"\n" for row in rows)]


def word2vec_text() -> list[bytes]:
    lines = [f"{word} {' '.join(map(str, vector))}" for word, vector in WORDS.items()]
    return [*encoded(lines), *encoded([f"{len(WORDS)} 4", *lines])]


def fasttext_model() -> list[bytes]:
    header = struct.pack("<2i", 793712314, 12) + struct.pack("<12id", 4, 5, 5, 1, 5, 1, 1, 2, 20, 3, 6, 100, 1e-4)
    words = b"".join(word.encode() + b"\0" + struct.pack("<qb", 3, 0) for word in WORDS)
    dictionary = struct.pack("<3i2q", len(WORDS), len(WORDS), 0, 99, -1) + words
    rows = len(WORDS) + 20
    return [header + dictionary + struct.pack(f"<?2q{4 * rows}f", False, rows, 4, *range(4 * rows))]


def checkpoint() -> list[bytes]:
    """The tutorial's configuration; the weights beside it stay whole."""
    sizes = {"model_type": "BiLSTM_CRF", "vocab_size": 9, "embedding_dim": 4, "hidden_dim": 6}
    return [json.dumps(sizes | {"tag_to_ix": {"O": 0, "B-PS": 1, "I-PS": 2}}).encode()]


def tutorial_weights() -> list[bytes]:
    import torch
    from torch import nn

    lstm = nn.LSTM(4, 3, bidirectional=True)
    state = {f"lstm.{name}": tensor for name, tensor in lstm.state_dict().items()}
    state |= {"word_embeds.weight": torch.zeros(9, 4), "hidden2tag.weight": torch.zeros(3, 6)}
    state |= {"hidden2tag.bias": torch.zeros(3), "crf.transitions": torch.zeros(3, 3)}
    state |= {f"crf.{name}_transitions": torch.zeros(3) for name in ("start", "end")}
    file = io.BytesIO()
    torch.save(state, file)
    return [file.getvalue()]


PREDICTIONS = [json.dumps({"text": "부산에 간다", "gold": [[0, 2, "LC"]], "predicted": [[4, 6, "PS"]]})] * 8
INLINE = [f"<손흥민:PS>은 {i}년 <춘천:LC>에서 태어났다." for i in range(8)]
KLUE = ["부\tB-LC", "산\tI-LC", " \tO", "에\tO", "", "김\tB-PS", "씨\tO", "", "이\tB-PS", "씨\tO"]
CONLL = ["민수는 B-PS", "부산에 B-LC", "산다 O", "", "영희는 B-PS", "간다 O", "", "비가 O", "온다 O"]
TOKENS_AND_TAGS = [json.dumps({"tokens": ["부산", "에"], "ner_tags": ["B-LC", "O"]}, ensure_ascii=False)] * 8


# ---------------------------------------------------------------- independent counts


def lines_of(data: bytes) -> list[bytes]:
    lines = data.split(b"\n")
    return [line.removesuffix(b"\r") for line in (lines if lines[-1] else lines[:-1])]


def count_lines(data: bytes) -> int:
    return len(lines_of(data))


def count_filled(data: bytes) -> int:
    return sum(bool(line.decode(errors="replace").strip()) for line in lines_of(data))


def count_below_header(data: bytes) -> int | None:
    """Lines below the header, of a file without quotation marks."""
    lines = [line for line in lines_of(data.removeprefix(b"\xef\xbb\xbf")) if line]
    return len(lines) - 1 if b'"' not in data else None


def count_below_tsv_header(data: bytes) -> int:
    return len([line for line in lines_of(data.removeprefix(b"\xef\xbb\xbf")) if line]) - 1


def count_array(data: bytes) -> int | None:
    try:
        array = json.loads(data.removeprefix(b"\xef\xbb\xbf"))
    except (ValueError, RecursionError):
        return None
    return len(array) if isinstance(array, list) else None


def count_sentences(data: bytes) -> int | None:
    """Groups of lines that are not blank."""
    try:
        blocks = re.split(r"\n\s*\n", "\n" + data.decode().replace("\r\n", "\n"))
    except UnicodeDecodeError:
        return None
    return None if "#" in data.decode() else sum(bool(block.strip()) for block in blocks)


# ---------------------------------------------------------------- readers


class Dropped(logging.Handler):
    """A count of the rows that the log reports as dropped."""

    rows = 0

    def emit(self, record: logging.LogRecord) -> None:
        self.rows += sum(map(int, re.findall(r"dropped (\d+)", record.getMessage())))


def read_texts(path: Path) -> int:
    from bilstm_crf_hf.data.raw_text import read_all

    return len(read_all([str(path)]))


def read_classes(path: Path) -> int:
    from bilstm_crf_hf.data.classification import load_classification_datasets

    return len(load_classification_datasets(data_files={"train": path})["train"])


def read_entities(path: Path) -> int:
    from bilstm_crf_hf.data.ner import load_ner_datasets

    return len(load_ner_datasets(data_files={"train": path})["train"])


def read_vectors(path: Path) -> int:
    from bilstm_crf_hf.data.vectors import file_vectors

    vectors = file_vectors(path)
    return sum(vectors.lookup(word) is not None for word in WORDS)


def read_checkpoint(path: Path) -> int:
    from bilstm_crf_hf.hub.legacy_checkpoint import load_checkpoint

    for name, make in (("config.json", checkpoint), ("pytorch_model.bin", tutorial_weights)):
        if path.name != name and not path.with_name(name).exists():
            path.with_name(name).write_bytes(make()[0])
    load_checkpoint(path.parent)
    return 1


def read_run_predictions(path: Path) -> int:
    from bilstm_crf_hf.evaluation.runs import read_predictions
    from bilstm_crf_hf.evaluation.tasks import TAGGING

    return len(read_predictions(path, TAGGING).texts)


def read_lossy(path: Path) -> int:
    return count_lines(path.read_bytes()) - 1


def read_foreign(path: Path) -> int:
    raise KeyError(path.name)


def read_nameless(path: Path) -> int:
    raise ValueError("a file that is not named")


def read_and_crash(path: Path) -> int:
    os.abort()


TEXTS = [row["text"] for row in ROWS]
FORMATS = {
    "txt": Format("a.txt", lambda: encoded(TEXTS), mutate_text(count_lines), read_texts),
    "jsonl": Format("a.jsonl", jsonl_files, mutate_text(count_filled), read_classes),
    "json": Format("a.json", json_files, mutate_text(count_array), read_classes),
    "csv": Format("a.csv", lambda: fields(","), mutate_text(count_below_header), read_classes),
    "tsv": Format("a.tsv", lambda: fields("\t"), mutate_text(count_below_tsv_header), read_classes),
    "parquet": Format("a.parquet", parquet_files, mutate_parquet, read_classes),
    "xlsx": Format("a.xlsx", xlsx_files, mutate_xlsx, read_classes),
    "vectors": Format("a.vec", word2vec_text, mutate_text(lambda data: None), read_vectors),
    "vectors in binary": Format("a.bin", word2vec_binary, mutate_binary, read_vectors),
    "fastText": Format("a.bin", fasttext_model, mutate_binary, read_vectors),
    "configuration": Format("config.json", checkpoint, mutate_text(lambda data: None), read_checkpoint),
    "weights": Format("pytorch_model.bin", tutorial_weights, mutate_binary, read_checkpoint),
    "predictions": Format("a.jsonl", lambda: encoded(PREDICTIONS), mutate_text(count_filled), read_run_predictions),
    "inline": Format("a.txt", lambda: encoded(INLINE), mutate_text(count_lines), read_entities),
    "klue": Format("a.tsv", lambda: encoded(KLUE), mutate_text(count_sentences), read_entities),
    "conll": Format("a.conll", lambda: encoded(CONLL), mutate_text(count_sentences), read_entities),
    "tokens": Format("a.jsonl", lambda: encoded(TOKENS_AND_TAGS), mutate_text(count_filled), read_entities),
}
FAULTY = {
    read.__name__: Format("a.txt", lambda: encoded(TEXTS), mutate_text(count_lines), read)
    for read in (read_lossy, read_foreign, read_nameless, read_and_crash)
}
"""Readers with one fault each, which the fuzzer must find."""


# ---------------------------------------------------------------- the loop


def fault_of(form: Format, random: Random, bases: list[bytes], path: Path, dropped: Dropped) -> str | None:
    """Read one mutated file, and return what is wrong with the outcome."""
    data, expected = form.mutate(random, random.choice(bases))
    path.write_bytes(data)
    dropped.rows = 0
    try:
        count = form.read(path)
    except ValueError as error:
        named = path.parent if form.read is read_checkpoint else path  # whose two files have to fit each other
        if type(error) is ValueError and str(named) in str(error):
            return None
        return f"{type(error).__name__}: {str(error)[:200]}"
    except Exception as error:
        return f"{type(error).__name__}: {str(error)[:200]}"
    if expected is not None and count + dropped.rows != expected:
        return f"{count} rows read and {dropped.rows} reported, of {expected}"
    return None


def main(output: Path, seed: str, first: int, count: int, names: list[str]) -> None:
    warnings.simplefilter("ignore")
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_LIMIT, MEMORY_LIMIT))
    dropped = Dropped()
    package = logging.getLogger("bilstm_crf_hf")
    package.addHandler(dropped)
    package.propagate = False
    for name in names:
        form = (FORMATS | FAULTY)[name]
        folder = output.with_name(name)
        folder.mkdir(exist_ok=True)
        bases, failures = form.files(), 0
        for i in range(first, first + count):
            output.with_suffix(".now").write_text(f"{name} {seed} {i}")
            faulthandler.dump_traceback_later(TIME_LIMIT, exit=True)
            fault = fault_of(form, Random(f"{name} {seed} {i}"), bases, folder / form.name, dropped)
            faulthandler.cancel_dump_traceback_later()
            if fault and (failures := failures + 1) <= MAX_FAILURES:
                with output.open("a") as file:
                    file.write(json.dumps([name, i, fault]) + "\n")
        with output.open("a") as file:
            file.write(json.dumps([name, None, failures]) + "\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]), int(sys.argv[4]), sys.argv[5:])
