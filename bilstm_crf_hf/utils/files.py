"""Files and folders that are written completely or not at all."""

import os
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO


@contextmanager
def write_atomically(path: Path) -> Iterator[IO[bytes]]:
    """Open a binary file for writing that gets the name `path` once the context ends without an error.

    A file that has this name already is replaced. After an error it stays as it is.
    """
    part = path.with_name(f"{path.name}.{uuid.uuid4().hex}.tmp")  # unique: a killed process may have left another one
    try:
        with part.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


@contextmanager
def write_folder_atomically(path: Path) -> Iterator[Path]:
    """Create an empty folder that gets the name `path` once the context ends without an error.

    Parent folders are created. `path` must not exist, or must be an empty folder.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{path.name}-", dir=path.parent) as unfinished:
        part = Path(unfinished, path.name)
        part.mkdir()
        yield part
        if path.exists():
            path.rmdir()
        part.rename(path)
