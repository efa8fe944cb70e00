"""Lines of text files in UTF-8."""

import os
from collections.abc import Iterable, Iterator
from pathlib import Path

PathLike = str | os.PathLike[str]


def decode_lines(lines: Iterable[bytes], path: PathLike) -> Iterator[str]:
    r"""Decode the lines of a file with their ends, without a byte order mark.

    Raises:
        ValueError: with line and byte, if a line is not UTF-8; if all lines end with `\r` alone.
    """
    for number, line in enumerate(lines, 1):
        if number == 1 and (line.startswith((b"\xff\xfe", b"\xfe\xff")) or b"\0" in line[:2]):
            problem = "byte 1 of the line is not UTF-8 but UTF-16"
            raise ValueError(f"{path}:1: {problem}: convert the file, as iconv -f utf-16 does")
        try:
            text = line.decode()
        except UnicodeDecodeError as error:
            problem = f"byte {error.start + 1} of the line is not UTF-8 ({error.reason})"
            raise ValueError(f"{path}:{number}: {problem}: convert the file, as iconv -f cp949 does") from None
        if number == 1:
            text = text.removeprefix("\ufeff")
            if "\r" in text[:-1] and not text.endswith("\n"):
                raise ValueError(f"{path}: the lines end with \\r alone: convert the file, as mac2unix does")
        yield text


def without_end(line: str) -> str:
    r"""Return a line without its end, `\n` or `\r\n`."""
    return line.removesuffix("\n").removesuffix("\r")


def lines_with_ends(path: PathLike) -> Iterator[str]:
    """Read the lines of a file, see [`decode_lines`]."""
    with Path(path).open("rb") as file:
        yield from decode_lines(file, path)


def read_lines(path: PathLike) -> Iterator[str]:
    """Read the lines of a UTF-8 file without their ends; raise ValueError with line and byte if it is not UTF-8."""
    return map(without_end, lines_with_ends(path))
