"""Vectors of words in files of word2vec, GloVe and fastText.

| file | format |
| --- | --- |
| begins with fastText's magic number | fastText's model: the vector of a word is the mean of those of its n-grams |
| other `.bin` | word2vec's binary format |
| all others, also `.gz` | lines of a word and the elements of its vector, below a header (word2vec) or not (GloVe) |

Nothing else is read, above all no pickle, in which gensim (`.kv`, `.model`), NumPy and PyTorch may store code. An
element of a vector that is kept and is not a finite number, and a file with more or fewer vectors than its header says,
are errors. Of a word that occurs twice, the first vector counts, and a warning counts the others. Files are read row by
row, and only what is kept takes memory.
"""

import gzip
import logging
import math
import mmap
import os
import re
import struct
import zlib
from collections.abc import Callable, Collection, Container, Iterable, Iterator
from functools import partial
from itertools import chain
from pathlib import Path
from typing import IO, Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from .lines import decode_lines

logger = logging.getLogger(__name__)

FASTTEXT_MAGIC = (793712314).to_bytes(4, "little")
"""First bytes of a model of fastText (FASTTEXT_FILEFORMAT_MAGIC_INT32 in its source)."""

CONTAINERS = (b"\x80", b"PK", b"\x93NUMPY")
"""First bytes of a pickle, of a zip file of PyTorch or NumPy, and of a `.npy` file."""

MAX_LINE = 2**24
"""Number of bytes of a line of text that are read at a time; longer lines are errors."""


Row = tuple[str, str, Callable[[], np.ndarray]]
"""A row of a file: its place for errors, the word, and a function that reads the vector."""


class Vectors(NamedTuple):
    """Vectors of words: the number of their elements, a function that returns that of a word, or None, and words.

    A model of fastText returns vectors of other words, too.
    """

    width: int
    lookup: Callable[[str], Tensor | None]
    words: Collection[str] = ()


def file_vectors(path: str | os.PathLike, wanted: Container[str] = (), others: int | None = None) -> Vectors:
    """Read the vectors in a file.

    Args:
        path: the file.
        wanted: words whose vectors are kept, if there are any.
        others: number of further words whose vectors are kept: the first ones in the file, which by custom are the
            most frequent. Default: all.

    Raises:
        FileNotFoundError: if the file does not exist.
        ValueError: if the file has another format or is incomplete; with the line of a text file, or the row of a
            binary one, if a vector is not valid.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file")
    with path.open("rb") as file:
        start = file.read(len(CONTAINERS[-1]))
        if start.startswith(CONTAINERS):
            problem = "a pickle or an archive of arrays, which may run code, is not read"
            raise ValueError(f"{path}: {problem}: save the vectors with save_word2vec_format of gensim")
        if not start:
            raise ValueError(f"{path}: the file is empty")
        file.seek(0)
        try:
            if start.startswith(FASTTEXT_MAGIC):
                vectors = _read_fasttext(file)
                return vectors._replace(words=list(_kept(vectors.words, str, wanted, others)))
            if path.suffix.lower() == ".bin":
                return _table(path, _binary_rows(file), wanted, others)
            with gzip.open(file) if path.suffix.lower() == ".gz" else file as text:
                lines = decode_lines(iter(partial(text.readline, MAX_LINE), b""), path)
                return _table(path, _text_rows(path, lines), wanted, others)
        except (EOFError, struct.error, zlib.error, gzip.BadGzipFile) as error:
            raise ValueError(f"{path}: not a file of vectors, or incomplete ({error}): download it again") from error


def _kept(rows: Iterable[Any], word_of: Callable[[Any], str], wanted: Container[str], others: int | None) -> Iterator:
    """Yield the rows whose words [`file_vectors`] keeps."""
    room = math.inf if others is None else others
    for row in rows:
        if word_of(row) not in wanted:
            if room <= 0:
                continue
            room -= 1
        yield row


def _table(path: Path, rows: Iterable[Row], wanted: Container[str], others: int | None) -> Vectors:
    """Collect the vectors of words that are kept."""
    vectors: dict[str, np.ndarray] = {}
    repeated = 0
    for place, word, read in _kept(rows, lambda row: row[1], wanted, others):
        vector = read()
        if not np.isfinite(vector).all():
            raise ValueError(f"{place}: an element of the vector of {word[:40]!r} is NaN or infinite: remove the row")
        repeated += word in vectors
        vectors.setdefault(word, vector)
    if not vectors:
        raise ValueError(f"{path}: no vector in it{' of the words that are called for' if wanted else ''}")
    if repeated:
        logger.warning("%s: %d words occur again; their first vectors count", path, repeated)
    width = len(next(iter(vectors.values())))
    return Vectors(width, lambda word: torch.tensor(vectors[word]) if word in vectors else None, vectors.keys())


def _header(line: bytes) -> tuple[int, int] | None:
    """Return the number and the width of the vectors in the first line of a file of word2vec; None if it has none."""
    header = re.fullmatch(rb"(\d{1,12}) (\d{1,9})\s*", line)
    return (int(header[1]), int(header[2])) if header else None


def _text_rows(path: Path, lines: Iterator[str]) -> Iterator[Row]:
    """Parse each line as a word, which may contain spaces, and as many numbers as the header or the first line has."""
    first = next(lines, "")  # a .gz file may be empty
    header = _header(first.encode())
    width = header[1] if header else len(_fields(first)) - 1
    if width < 1:
        raise ValueError(f"{path}:1: expected a word and the elements of its vector, or the header of word2vec")
    count = 0
    for count, line in enumerate(lines if header else chain([first], lines), 1):
        place = f"{path}:{count + bool(header)}"
        fields = _fields(line)
        word, numbers = " ".join(fields[:-width]), fields[-width:]
        if not word or (len(fields) > width + 1 and _is_number(fields[-width - 1])):
            raise ValueError(f"{place}: {len(fields) - 1} numbers after the word, expected {width}")
        if word.strip(" ") not in ("", word):
            raise ValueError(
                f"{place}: {word[:40]!r} has spaces at an edge: write one space behind a word, none before it"
            )
        yield place, word, partial(_parsed, place, numbers)
    if header and count != header[0]:
        raise ValueError(f"{path}: {count} vectors, but {header[0]} by its first line: download the file again")


def _parsed(place: str, numbers: list[str]) -> np.ndarray:
    """Return the elements of a vector."""
    try:
        with np.errstate(over="ignore"):
            return np.array(numbers, np.float32)
    except ValueError:
        wrong = next((field for field in numbers if not _is_number(field)), "")
        raise ValueError(f"{place}: {wrong[:40]!r} is not a number") from None


def _fields(line: str) -> list[str]:
    return line.rstrip(" \t\r\n").replace("\t", " ").split(" ")


def _is_number(field: str) -> bool:
    try:
        float(field)
    except ValueError:
        return False
    return True


def _binary_rows(file: IO[bytes]) -> Iterator[Row]:
    data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    if (header := _header(data[: data.find(b"\n") + 1])) is None:
        raise ValueError(f"{file.name}: the first line has no number and width of vectors: is this another format?")
    count, width = header
    position = data.find(b"\n") + 1
    for row in range(count):
        place, start = f"{file.name}: row {row}", data.find(b" ", position) + 1
        end = start + 4 * width
        if not start or end > len(data):
            raise ValueError(
                f"{place}: the file ends here, but has {count} vectors by its first line: download it again"
            )
        try:
            word = data[position : start - 1].removeprefix(b"\n").decode()
        except UnicodeDecodeError as error:
            raise ValueError(f"{place}: the word is not UTF-8 ({error.reason}): train the vectors on UTF-8") from None
        yield place, word, partial(np.frombuffer, data, "<f4", width, start)
        position = end
    if data[position:].strip(b"\n"):
        raise ValueError(f"{file.name}: more than the {count} vectors of its first line: download it again")


def _read_fasttext(file: IO[bytes]) -> Vectors:
    """Read a model as `FastText::saveModel` writes it. As in gensim, bytes of a word that are not UTF-8 are escaped."""
    data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    position = 0

    def take(layout: str) -> tuple:
        nonlocal position
        values = struct.unpack_from(f"<{layout}", data, position)
        position += struct.calcsize(f"<{layout}")
        return values

    take("2i")  # magic number and version
    width, *_, buckets, shortest, longest, _, _ = take("12id")
    entries, num_words, _, _, pruned = take("3i2q")
    ids: dict[str, int] = {}
    for i in range(entries):
        end = data.find(b"\0", position)
        if end < 0:
            raise EOFError(f"the file ends in the dictionary, at entry {i} of {entries}")
        word = data[position:end].decode(errors="backslashreplace")
        position = end + 1
        _, kind = take("qb")
        if kind == 0:  # the words come first, then the labels of a classifier
            ids.setdefault(word, i)
    (quantized,) = take("?")
    rows, columns = take("2q")
    if quantized or pruned > 0:
        raise ValueError(f"{file.name}: a compressed model: name the one that it was made from (.bin)")
    if not 0 < columns == width or not len(ids) <= num_words <= num_words + buckets == rows:
        raise ValueError(f"{file.name}: {rows} x {columns} elements do not fit its header: download the file again")
    if 4 * rows * columns > len(data) - position:
        raise EOFError(f"the file has no room for {rows} x {columns} elements")
    matrix = np.frombuffer(data, "<f4", rows * columns, position).reshape(rows, columns)
    if not np.isfinite(matrix.sum(dtype=np.float64)):
        raise ValueError(f"{file.name}: an element of a vector is NaN or infinite: download the file again")

    def lookup(word: str) -> Tensor | None:
        found = [ids[word]] if word in ids else []
        if buckets and word != "</s>":
            found += [num_words + code % buckets for code in _ngram_hashes(word, shortest, longest)]
        return torch.from_numpy(matrix[found].mean(0)) if found else None

    return Vectors(width, lookup, ids.keys())


def _ngram_hashes(word: str, shortest: int, longest: int) -> Iterator[int]:
    """Yield the hash of each n-gram of `<word>` but the brackets alone: FNV-1a on signed bytes, as in fastText."""
    characters = [character.encode() for character in f"<{word}>"]
    for start in range(len(characters)):
        for end in range(start + max(shortest, 1), min(start + longest, len(characters)) + 1):
            if end - start == 1 and (start == 0 or end == len(characters)):
                continue
            code = 2166136261
            for byte in b"".join(characters[start:end]):
                code = (code ^ (byte if byte < 128 else byte | 0xFFFFFF00)) * 16777619 & 0xFFFFFFFF
            yield code
