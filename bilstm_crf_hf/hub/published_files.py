"""Files that may be published: the list of their names, and checks of their contents.

Whatever else lies in a run folder is not sent: data, records of the training, keys, copies of code.
"""

import json
import math
import os
import re
import stat
from collections.abc import Iterator
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, NoReturn

from huggingface_hub import get_token
from safetensors import SafetensorError, safe_open

from .. import __version__
from ..evaluation.runs import CONFIG, CONFUSION, CURVES, ENCODER_TOKENIZER, RESULTS
from ..utils.files import LOCK

PACKAGE = "bilstm_crf_hf"
ROOT = Path(__file__).parents[1]
CARD, EVAL_RESULTS = "README.md", f".eval_results/{PACKAGE}.yaml"

# Names

CODE = {path.name for path in ROOT.glob("*.py")} - {"__init__.py"}
"""The code that a saved model may contain: all files of the package's root."""
VOCABULARIES = ("tokenizer.json", "vocab.json", "vocab.txt", "merges.txt")
"""Files that are not checked for paths: some of their tokens look like paths."""
TOKENIZERS = (
    *VOCABULARIES,
    *("tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "chat_template.jinja"),
    *("tokenizer.model", "spiece.model", "spm.model", "sentencepiece.bpe.model"),
)
"""Files of the tokenizers of transformers."""
_SHARD = "[0-9]" * 5 + "-of-" + "[0-9]" * 5 + ".safetensors"
WEIGHTS = (
    *("model.safetensors", "model.safetensors.index.json", f"model-{_SHARD}"),
    "model-" + "[0-9a-f]" * 8 + f"-{_SHARD}",  # of a model that was saved over another one, see `saving`
)
LICENSES = ("LICENSE", "LICENSE.md", "LICENSE.txt", "NOTICE", "NOTICE.md", "NOTICE.txt")
PUBLISHED = {
    "": (CONFIG, *WEIGHTS, *TOKENIZERS, *CODE, CARD, RESULTS, CURVES, CONFUSION, *LICENSES),
    ENCODER_TOKENIZER: TOKENIZERS,
    "onnx": ("model.onnx", "model_int8.onnx", CONFIG, *TOKENIZERS, *CODE, "onnx_inference.py"),
}
"""Patterns of the names of the files that are sent, by folder; `EVAL_RESULTS` is made anew for each publication."""
LARGE = (".safetensors", ".onnx")
"""Endings of files of any size; the others are read as a whole, so that they may have `LARGEST` bytes."""
LARGEST = 2**28


def copy_published(folder: Path, target: Path) -> list[str]:
    """Copy the files of a run folder whose names are in `PUBLISHED` to a new folder, and return the other names.

    Raises:
        ValueError: if one of the files, or a folder of `PUBLISHED`, is a link, a device or the like, or a file is
            too large to be checked.
    """
    left_out, faults = [], []
    for path in _entries(folder):
        name = path.relative_to(folder).as_posix()
        place, _, file = name.rpartition("/")
        if name in PUBLISHED:
            faults.append(f"{name}: is a link or no folder: put the folder itself here")
        elif any(fnmatchcase(file, pattern) for pattern in PUBLISHED[place]):
            target.joinpath(place).mkdir(parents=True, exist_ok=True)
            if not stat.S_ISREG((status := path.lstat()).st_mode):
                faults.append(f"{name}: is a link or no regular file: put the file itself here")
            elif status.st_size > LARGEST and path.suffix not in LARGE:
                faults.append(f"{name}: has {status.st_size:,} bytes, which are too many to check: move it away")
            else:
                _copy(path, target / name)
        else:
            shown = name if name.isprintable() else ascii(name)  # it may have commands for a terminal
            left_out.append(f"{shown}/" if path.is_dir() else shown)
    _refuse(faults)
    return left_out


def _entries(folder: Path) -> Iterator[Path]:
    """Yield what is in a run folder, and in place of a folder of `PUBLISHED` what is in it."""
    for path in sorted(path for path in folder.iterdir() if path.name != LOCK):
        known = path.name in PUBLISHED and path.is_dir() and not path.is_symlink()
        yield from sorted(path.iterdir()) if known else [path]


def _copy(source: Path, target: Path) -> None:
    """Copy a file. Links are not followed, also if they appear just now."""
    flags = getattr(os, "O_NOFOLLOW", 0)
    with (
        open(source, "rb", opener=lambda path, mode: os.open(path, mode | flags)) as content,
        target.open("wb") as copy,
    ):
        while block := content.read(2**20):
            copy.write(block)


def files_of(folder: Path) -> dict[str, Path]:
    """Return all files in a folder and its subfolders, by their paths relative to the folder."""
    return {path.relative_to(folder).as_posix(): path for path in sorted(folder.rglob("*")) if path.is_file()}


# Contents

_TAIL = "[A-Za-z0-9_-]"
TOKEN = re.compile(
    r"(?<![A-Za-z0-9])(?:"
    r"hf_(?:[a-z]+_)?[A-Za-z0-9]{20,}|api_org_[A-Za-z]{20,}"  # the Hub and its organizations
    r"|gh[opusr]_[A-Za-z0-9]{20,}|github_pat_[A-Za-z0-9_]{20,}"
    r"|gl(?:pat|dt|rt|ptt|cbt|ft|soat|agent|oas|imt)-[A-Za-z0-9_.-]{20,}"  # GitLab
    rf"|sk-(?:(?:proj|svcacct|admin|ant|or|lf)-{_TAIL}{{20,}}|(?=[a-z]*[A-Z0-9])[A-Za-z0-9]{{20,}})"
    rf"|(?:gsk_|xai-|pplx-|pcsk_){_TAIL}{{20,}}"  # OpenAI, Anthropic, others
    rf"|r8_[A-Za-z0-9]{{30,}}|nvapi-{_TAIL}{{20,}}|wandb_v\d_[A-Za-z0-9_]{{20,}}"
    r"|npm_[A-Za-z0-9]{36}|pypi-[A-Za-z0-9_-]{50,}|(?:secret|ntn)_[A-Za-z0-9]{40,}"  # the last two are of Notion
    rf"|(?:dckr_[op]at_|hv[bsr]\.|lin_api_|shp(?:at|ca|pa|ss)_|gl(?:sa|c)_){_TAIL}{{20,}}"
    rf"|(?:PMAK-|NRAK-|sntry[su]_|figd_|tskey-){_TAIL}{{20,}}"
    rf"|(?:pscale_[a-z]+_|sbp_|ATATT3|sl\.){_TAIL}{{32,}}|pat[A-Za-z0-9]{{14}}\.[a-f0-9]{{64}}|AGE-SECRET-KEY-1\w{{50,}}"
    rf"|xox[a-z]-[A-Za-z0-9-]{{10,}}|xapp-[A-Za-z0-9-]{{20,}}|SG\.{_TAIL}{{16,}}\.{_TAIL}{{16,}}"  # Slack, SendGrid
    r"|[rsp]k_(?:live|test)_[A-Za-z0-9]{16,}|whsec_[A-Za-z0-9]{24,}"  # Stripe
    rf"|ya29\.{_TAIL}{{20,}}|GOCSPX-{_TAIL}{{20,}}|do[opr]_v1_[a-f0-9]{{40,}}|dapi[a-f0-9]{{32}}(?![A-Za-z0-9])"
    rf"|eyJ{_TAIL}{{8,}}\.eyJ{_TAIL}{{8,}}\.)"  # JSON Web Tokens
    # These have letters and digits only, like the encoded tables in some tokenizers: they have to stand alone.
    rf"|(?<![A-Za-z0-9+/_-])(?:A[KS]IA[0-9A-Z]{{16}}|AIza{_TAIL}{{35}}|LTAI[0-9A-Za-z]{{12,24}}|SK[0-9a-f]{{32}}"
    rf"|key-[0-9a-f]{{32}}|[0-9]{{8,10}}:AA{_TAIL}{{33}})(?![A-Za-z0-9+/_-])"  # AWS, Google, Alibaba, Twilio, Telegram
    r"|hooks\.slack\.com/services/\w+/\w+/\w+|discord(?:app)?\.com/api/webhooks/\d+/[\w-]+|[?&]sig=[\w%/+]{20,}"
    # Keys without a form of their own, beside their names. Without a digit, they are more often words.
    r"|(?i:(?:(?:api|access|auth|account|secret|private)[ _-]?(?:key|token)|secret|passw(?:or)?d)[\"' \t]*[=:]"
    r"|\b(?:password|bearer) )[\"' \t]*(?=[A-Za-z/+_-]*\d)(?=[\d/+_-]*[A-Za-z])[A-Za-z0-9/+_-]{12,}"
    r'|"key"\s*:\s*"[0-9a-f]{32}"'  # Kaggle
)
"""Access tokens of the usual services."""
SECRETS = {
    "an access token": TOKEN,
    "a private key": re.compile(r"-----BEGIN [A-Z0-9 ]*PRIVATE KEY(?: BLOCK)?-----|PuTTY-User-Key-File-\d"),
    "a password": re.compile(r"""://[^\s/:@<>{}$"'`]{0,99}:[^\s/:@<>{}$"'`*]{3,99}@(?!sha\d)[\w\[]"""),  # in an address
}
SECRET_NAME = re.compile(r"(?i)(?:key|token|secret|passw(?:or)?d)$")
"""Names of environment variables with secrets."""
ABSOLUTE_PATH = re.compile(
    r"(?<![\w/.<~)}\]*-])(?:file://)?/(?:[\w.@+-]+/)+[\w.@+-]+"
    r"|(?<![\w/.])[A-Za-z]:\\{1,2}[\w.@+-][\w.@+ -]*\\{1,2}[\w.@+-]+"
)
"""Absolute paths of a folder and something in it; `/s` or `C:\\n` alone are more often something else. Paths in URLs,
relative paths (`./a/b`, `~/a/b`, `${A}/b/c`) and words separated by slashes do not match."""

BINARY = {".png": b"\x89PNG\r\n\x1a\n", ".model": b"\n", ".onnx": b"\x08"}
"""Beginnings of pictures, SentencePiece models and graphs, whose readable parts are checked: they may name a file."""
BINARY_PATH = 12
"""The least length of a path in such a file: among millions of weights, some bytes look like `/A/@B4` by chance."""
PICKLE = re.compile(rb"\x80[\x01-\x05]|PK\x03\x04|\x93NUMPY")
"""The beginnings of pickles, and of archives and arrays that may contain one."""
HIDDEN = re.compile(rb"[iz]TXt|iCCP|eXIf|IEND\xaeB`\x82(?s:.)")
"""Parts of a picture with compressed text, and a picture with something behind its end."""


def check_files(folder: Path) -> None:
    """Check the contents of the files that are sent.

    Raises:
        ValueError: if weights are missing; with its name, if a file contains a pickle, an access token, a password or a
            local path, if its content does not fit its name, or if code is not that of this package.
    """
    files = files_of(folder)
    faults = [f"{name}:{fault}" for name, path in files.items() for fault in _faults(path)]
    if not any(name.endswith(".safetensors") for name in files):
        faults.insert(0, "there are no weights (model.safetensors)")
    _refuse(faults)


def _refuse(faults: list[str]) -> None:
    if faults:
        raise ValueError("nothing was sent:\n  " + "\n  ".join(faults))


def _faults(path: Path) -> Iterator[str]:
    """Yield what is wrong with a file; the number of a line comes first."""
    suffix = path.suffix.lower()
    with path.open("rb") as file:
        start = file.read(8)
    if suffix == ".safetensors":
        try:
            with safe_open(path, "pt"):
                pass
        except SafetensorError as error:
            yield f" is no safetensors file ({error}): save the model again"
            return
    elif PICKLE.match(start):
        yield " may contain pickled code: save it as safetensors, or move it away"
        return
    elif not start.startswith(BINARY.get(suffix, b"")):
        yield f" is no {suffix} file: move it away"
        return
    elif suffix == ".png" and HIDDEN.search(path.read_bytes()):
        yield " has compressed text or an appendix, which cannot be checked: save the picture again"
    elif suffix == ".py" and path.read_bytes() != _package_file(path.name).read_bytes():
        yield f" is not that of {PACKAGE} {__version__}: load the model with this version and save it again"
    try:
        text = _text(path)
    except UnicodeDecodeError:
        yield " is not text in UTF-8 and cannot be checked: move it away"
        return
    if suffix == ".json":
        try:
            content = json.loads(text, parse_constant=_refuse_constant)
        except (ValueError, RecursionError) as error:
            yield f" is not JSON ({error}): write it again"
        else:
            yield from (f" loads {code}, which is not sent: save the model again" for code in _foreign_code(content))
    yield from _secrets(text, math.inf if path.name in VOCABULARIES else BINARY_PATH if suffix in BINARY else 0)


def _package_file(name: str) -> Path:
    """Return the file of this package of which a file of code is a copy."""
    return ROOT / name if name in CODE else ROOT / "inference" / name


def _foreign_code(content: Any) -> Iterator[str]:
    """Yield the code that a configuration names, as `file.Class` or `repository--file.Class`, and `CODE` lacks."""
    if isinstance(content, dict):
        values = [content.get("auto_map"), content.get("custom_pipelines")]
        while values:
            value = values.pop()
            if isinstance(value, (dict, list)):
                values += value.values() if isinstance(value, dict) else value
            elif isinstance(value, str) and "." in value and f"{value.partition('.')[0]}.py" not in CODE:
                yield value


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"it holds {name}")


def _text(path: Path) -> str:
    """Return the text of a file: the header of a safetensors file, the readable parts of a file in `BINARY`."""
    suffix = path.suffix.lower()
    if suffix == ".safetensors":
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            return file.read(min(length, path.stat().st_size)).decode()
    if suffix in BINARY:
        return b"\n".join(re.findall(rb"[\x20-\x7e]{8,}", path.read_bytes())).decode()
    return path.read_text(encoding="utf-8")


def _secrets(text: str, shortest_path: float) -> Iterator[str]:
    """Yield number and fault of each line with a secret, which is not repeated, or a path of this machine.

    Args:
        text: the text to search.
        shortest_path: the least length of a path.
    """
    # As JSON writes Hangul and slashes.
    text = re.sub(r"\\u(?!00[01])([0-9a-fA-F]{4})", lambda code: chr(int(code[1], 16)), text).replace(r"\/", "/")
    own, faults = {"your access token": get_token()}, dict[int, str]()
    own |= {f"the value of {name}": os.environ[name] for name in secret_variables()}
    patterns = {kind: re.compile(re.escape(value)) for kind, value in own.items() if value and len(value) >= 12}
    for kind, pattern in (patterns | SECRETS).items():
        for found in pattern.finditer(text):
            faults.setdefault(_line(text, found.start()), f"{kind}: remove it, and revoke it")
    for found in ABSOLUTE_PATH.finditer(text):
        if len(found[0]) >= shortest_path:
            faults.setdefault(_line(text, found.start()), f"a path of this machine, {found[0][:80]}: remove it")
    yield from (f"{number}: {fault}" for number, fault in sorted(faults.items()))


def secret_variables() -> list[str]:
    """Return the names of the environment variables that have a key, a token or a password."""
    return [name for name in os.environ if SECRET_NAME.search(name)]


def _line(text: str, position: int) -> int:
    return text.count("\n", 0, position) + 1
