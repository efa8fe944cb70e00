"""Files and folders that are written completely or not at all, and by one process at a time."""

import json
import math
import os
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

import psutil
from filelock import FileLock, Timeout

LOCK = ".lock"
"""Name of the file that locks a folder, and ending of the one that locks a file."""


@contextmanager
def write_atomically(path: Path) -> Iterator[IO[bytes]]:
    """Open a binary file for writing that gets the name `path` once the context ends without an error.

    A file that has this name already is replaced. After an error it stays as it is. An error of the system, such as a
    full disk, names the file.
    """
    part = path.with_name(f"{path.name}.{uuid.uuid4().hex}.tmp")  # unique: a killed process may have left another one
    try:
        with part.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
    except OSError as error:
        if error.errno is None or error.filename not in (None, str(part)):
            raise
        raise OSError(error.errno, error.strerror, str(path)) from error
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


def write_json(path: Path, content: Any) -> None:
    """Write a value as a JSON file, completely or not at all.

    Raises:
        ValueError: with the file and the field, if a number is NaN or infinite, which JSON does not have.
    """
    text = to_json(content, str(path), indent=2)
    with write_atomically(path) as file:
        file.write(f"{text}\n".encode())


def to_json(value: Any, place: str, indent: int | None = None) -> str:
    """Return a value as JSON; raise ValueError with `place` and the field if a number is NaN or infinite."""
    try:
        return json.dumps(value, ensure_ascii=False, allow_nan=False, indent=indent)
    except ValueError:
        for field, number in _non_finite(value):
            problem = f"{field} is {number}" if field else f"the value is {number}"
            raise ValueError(f"{place}: {problem}, which JSON cannot hold: correct or remove it") from None
        raise


def _non_finite(value: Any, field: str = "") -> Iterator[tuple[str, float]]:
    """Yield the numbers in a value that are not finite, each with the path of its field."""
    if isinstance(value, float) and not math.isfinite(value):
        yield field, value
    elif isinstance(value, dict):
        for name, item in value.items():
            yield from _non_finite(item, f"{field}.{name}".lstrip("."))
    elif isinstance(value, (list, tuple)):
        for i, item in enumerate(value):
            yield from _non_finite(item, f"{field}[{i}]")


@contextmanager
def locked(folder: Path, name: str = "") -> Iterator[None]:
    """Keep other processes out of a folder, or away from a file in it, until the context ends.

    The lock is a hidden file in the folder, which is created if necessary, and removed if it is empty at the end. The
    operating system releases the lock of a process that is killed. Contexts of one process may be nested.

    Args:
        name: name of the file, which need not exist. Default: the whole folder.

    Raises:
        BlockingIOError: at once, if another process has the lock.
        OSError: if nothing can be written to the folder.
    """
    folder = folder.resolve()
    created = [path for path in (folder, *folder.parents) if not path.exists()]
    lock = FileLock(folder / (f".{name}{LOCK}" if name else LOCK), 0, thread_local=False, is_singleton=True)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock.acquire()
    except Timeout:
        raise BlockingIOError(
            f"{folder / name}: another process is at work here{_holder(lock.lock_file)}: wait for its end, or name "
            "another output"
        ) from None
    except (OSError, NotImplementedError) as error:  # NotImplementedError: the file system has no locks
        reason = getattr(error, "strerror", None) or error
        raise OSError(f"{folder}: nothing can be written here ({reason}): name another output") from error
    try:
        yield
    finally:
        if lock.lock_counter == 1 and os.name == "posix":  # elsewhere `release` removes the file
            Path(lock.lock_file).unlink(missing_ok=True)
        lock.release()
        for path in created:
            with suppress(OSError):  # not empty
                path.rmdir()


def _holder(file: str) -> str:
    """Return a description of the process on this machine that has a file open, or nothing."""
    for process in psutil.process_iter():
        with suppress(psutil.Error):  # of another user, or ended meanwhile
            if any(opened.path == file for opened in process.open_files()):
                return f" (process {process.pid}, {process.name()})"
    return ""
