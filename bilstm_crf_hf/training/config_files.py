"""Configuration files in YAML, whose scalars stay as they stand: the argument that a value is for decides its type."""

import json
from pathlib import Path
from typing import Any

import yaml

NULLS = ("", "~", "null", "Null", "NULL")
"""Spellings of no value, unless they are quoted or stand in a list."""


class _Loader(yaml.BaseLoader):
    """Loader whose aliases stand for single values only: those of lists may contain themselves, or multiply."""

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        """Return the next node; raise ComposerError if it is an alias of a list or mapping."""
        is_alias, mark = self.check_event(yaml.AliasEvent), self.peek_event().start_mark
        node = super().compose_node(parent, index)
        if is_alias and not isinstance(node, yaml.ScalarNode):
            raise yaml.composer.ComposerError(None, None, "an alias stands for a single value only", mark)
        return node


def read_entries(path: Path) -> dict[str, yaml.Node]:
    """Return the values of a file with lines `name: value`, by their names.

    Raises:
        FileNotFoundError: if the file does not exist.
        ValueError: if it is not YAML in UTF-8, or not a mapping with different names.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such configuration file")
    try:
        node = yaml.compose(path.read_text(encoding="utf-8-sig"), _Loader)
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError) as error:
        raise ValueError(f"{path}: the file is not YAML in UTF-8: {' '.join(str(error).split())}") from None
    return {} if node is None else entries(node, path)


def entries(node: yaml.Node, path: Path) -> dict[str, yaml.Node]:
    """Return the values of a mapping in the file `path` by their names; raise ValueError as [`read_entries`] does."""
    if not isinstance(node, yaml.MappingNode):
        raise ValueError(f"{place(node, path)}: expected lines `name: value`")
    found: dict[str, yaml.Node] = {}
    for key, value in node.value:
        if not isinstance(key, yaml.ScalarNode):
            raise ValueError(f"{place(key, path)}: expected a name before the colon")
        if key.value in found:
            raise ValueError(f"{place(key, path)}: {key.value} is given twice: delete one of the lines")
        found[key.value] = value
    return found


def place(node: yaml.Node, path: Path) -> str:
    """Return file and line of a node, for error messages."""
    return f"{path}:{node.start_mark.line + 1}"


def argument_of(node: yaml.Node, path: Path) -> str | list[str] | dict[str, Any] | None:
    """Return the value of an argument: a string or a list of strings as they stand, or a mapping with typed values.

    So `label_names: [no, yes]` are strings, and `save_strategy: no` is the string that `--save_strategy no` gives. The
    values in a mapping have the types of JSON; other scalars there are strings.

    Raises:
        ValueError: if a list does not have a single value in each item, or a mapping has a name twice.
    """
    if isinstance(node, yaml.MappingNode):
        return _typed(node, path)
    if isinstance(node, yaml.SequenceNode):
        for item in node.value:
            if not isinstance(item, yaml.ScalarNode):
                raise ValueError(f"{place(item, path)}: expected a single value in each item of the list")
        return [item.value for item in node.value]
    return None if _is_null(node) else node.value


def _is_null(node: yaml.Node) -> bool:
    return node.style is None and node.value in NULLS


def _typed(node: yaml.Node, path: Path) -> Any:
    """Return the value of a node; plain scalars are numbers, booleans and null where JSON has them."""
    if isinstance(node, yaml.MappingNode):
        return {name: _typed(value, path) for name, value in entries(node, path).items()}
    if isinstance(node, yaml.SequenceNode):
        return [_typed(item, path) for item in node.value]
    if _is_null(node):
        return None
    if node.style is not None:
        return node.value
    if node.value in ("True", "False"):
        return node.value == "True"
    try:
        return json.loads(node.value, parse_constant=str)
    except json.JSONDecodeError:
        return node.value
