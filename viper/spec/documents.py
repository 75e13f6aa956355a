"""YAML and JSON files that people write: one reader with one rule, and limits on what it takes.

What a scalar means is what kubectl takes it for (YAML 1.2 numbers, hexadecimal, octal, `yes` and `no` too): `1e-4` is a
number, a date and `1:30` are text. A mapping's keys are text. Twice the same key, tags of other types, references that
multiply and nesting without end are refused, with the line.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar, NoReturn

import yaml
from yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode

from viper.errors import SpecError

#: Bytes of a file: an API server takes 1.5 MiB.
LARGEST = 2 * 1024 * 1024
#: Mappings and lists inside each other; a resource with a pod template has about 20.
DEEPEST = 100
#: Values of a file, those that references repeat counted each time.
MOST = 10_000
#: Digits of a whole number; Kubernetes has 64 bits.
DIGITS = 18

_INTEGER = re.compile(r"[-+]?(0b[01_]+|0o?[0-7_]+|0x[0-9a-fA-F_]+|[1-9][0-9_]*|0)")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9][0-9_]*(\.[0-9_]*)?)([eE][-+]?[0-9]+)?")
_BOOLEANS = {
    word: value
    for value, plain in ((True, ("true", "yes", "on")), (False, ("false", "no", "off")))
    for name in plain
    for word in (name, name.capitalize(), name.upper())
}
_NULLS = ("~", "null", "Null", "NULL", "")
_TAG = "tag:yaml.org,2002:"


def read_documents(file: str | Path, *, stdin: bool = False) -> list[Any]:
    """The documents of a file, empty ones left out; with `stdin` the name `-` is standard input.

    Raises `SpecError`, with the line where there is one.
    """
    where = str(file)
    if stdin and where == "-":
        return documents(_limited(_standard_input(), "standard input"), "standard input")
    try:
        with Path(file).open("rb") as opened:
            return documents(_limited(opened, where), where)
    except FileNotFoundError:
        raise SpecError("there is no such file", where=where) from None
    except IsADirectoryError:
        raise SpecError("is a folder", where=where, fix="name the file in it") from None
    except (OSError, ValueError) as error:  # ValueError: a NUL in the name
        reason = error.strerror if isinstance(error, OSError) else error
        raise SpecError(f"cannot be read: {reason}", where=shown(where)) from None


def read_document(file: Path) -> Any:
    """The one document of a file; raises `SpecError`, also when there is none or several."""
    found = read_documents(file)
    if not found:
        raise SpecError("is empty", where=str(file))
    if len(found) > 1:
        raise SpecError(
            f"holds {len(found)} documents, and one is wanted", where=str(file), fix="put each into a file of its own"
        )
    return found[0]


def documents(data: bytes, where: str) -> list[Any]:
    """Decodes YAML or JSON; raises `SpecError`."""
    text = _text(data, where)
    if text.lstrip()[:1] in ("{", "["):  # JSON may have tabs where YAML has none
        try:
            return [_json(text)]
        except json.JSONDecodeError:  # flow YAML
            pass
        except (_JsonError, RecursionError) as error:
            raise SpecError(f"is no usable JSON: {_reason(error)}", where=where) from None
    loader = _Loader(text, where)
    try:
        found = []
        while loader.check_data():  # type: ignore[no-untyped-call]
            found.append(loader.get_data())
        return [d for d in found if d is not None]
    except yaml.YAMLError as error:
        fix = "indent with spaces, not with tabs" if "'\\t'" in str(error) else ""
        raise SpecError(f"is not valid YAML: {error}", where=where, fix=fix) from None
    finally:
        loader.dispose()


def shown(value: object, most: int = 200) -> str:
    """A value for an error, shortened: it may be a whole file that was given for a word."""
    try:
        text = str(value)
    except ValueError:  # more digits than Python writes
        return "a number with thousands of digits"
    return text if len(text) <= most else f"{text[:most]}… ({len(text)} characters)"


def _standard_input() -> Any:
    if sys.stdin is None:
        raise SpecError("is closed", where="standard input", fix="give a file")
    return getattr(sys.stdin, "buffer", sys.stdin)


def _limited(opened: Any, where: str) -> bytes:
    data = opened.read(LARGEST + 1)
    found: bytes = data.encode() if isinstance(data, str) else data
    if len(found) > LARGEST:
        raise SpecError(
            f"is larger than {LARGEST // 2**20} MiB", where=where, fix="name the file of a resource, not of its data"
        )
    return found


def _text(data: bytes, where: str) -> str:
    if data[:2] in (b"\xff\xfe", b"\xfe\xff"):
        raise SpecError("is UTF-16", where=where, fix="save the file as UTF-8")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise SpecError(f"is not UTF-8 text (line {line})", where=where, fix="save the file as UTF-8") from None


def _reason(error: Exception) -> str:
    return _TOO_DEEP if isinstance(error, RecursionError) else str(error)


_TOO_DEEP = f"mappings and lists are nested more than {DEEPEST} deep"


class _JsonError(ValueError):
    """What `json` reads and a resource cannot hold."""


def _json(text: str) -> Any:
    def pairs(found: list[tuple[str, Any]]) -> dict[str, Any]:
        made = dict(found)
        if len(made) != len(found):
            names = [name for name, _ in found]
            raise _JsonError(f"the key {shown(next(n for n in names if names.count(n) > 1))!r} is there twice")
        return made

    def integer(digits: str) -> int:
        if len(digits.lstrip("-")) > DIGITS:
            raise _JsonError(f"{shown(digits, 40)} has more than {DIGITS} digits")
        return int(digits)

    def constant(name: str) -> NoReturn:
        raise _JsonError(f"{name} is no number of JSON")

    made = json.loads(text, object_pairs_hook=pairs, parse_int=integer, parse_constant=constant)
    level, depth = [made], 0
    while level:  # as wide as the file, never deeper than a loop
        depth += 1
        if depth > DEEPEST:
            raise _JsonError(_TOO_DEEP)
        level = [v for x in level for v in _children(x)]
    return made


def _children(value: Any) -> Iterator[Any]:
    return iter(value.values() if isinstance(value, dict) else value if isinstance(value, list) else ())


class _Loader(yaml.SafeLoader):
    """`yaml.SafeLoader` with the rules and the limits of this module."""

    #: Its own, not PyYAML's: nothing but JSON's types.
    yaml_implicit_resolvers: ClassVar[dict[Any, Any]] = {}  # type: ignore[misc]
    yaml_constructors: ClassVar[dict[Any, Any]] = {}

    def __init__(self, text: str, where: str) -> None:
        self._depth = self._values = 0
        #: Values below every node that is complete, references counted each time.
        self._sizes: dict[Node, int] = {}
        try:
            super().__init__(text)
        except yaml.YAMLError as error:  # a character that YAML does not have
            raise SpecError(f"is not valid YAML: {error}", where=where, fix="save the file as plain text") from None
        self.name = where

    def compose_node(self, parent: Node | None, index: Any) -> Node | None:
        if self._depth == 0:  # a document of its own
            self._values, self._sizes = 0, {}
        event = self.peek_event()  # type: ignore[no-untyped-call]
        reference = isinstance(event, yaml.AliasEvent)
        before = self._values
        self._depth += 1
        if self._depth > DEEPEST:
            raise _refusal(_TOO_DEEP, event)
        node = super().compose_node(parent, index)
        self._depth -= 1
        assert node is not None  # noqa: S101 (only of a document that is none)
        if reference and node not in self._sizes:
            raise _refusal(f"*{event.anchor} is inside itself", event)
        self._values += self._sizes[node] if reference else 1
        if self._values > MOST:
            raise _refusal(f"more than {MOST:,} values, references counted each time", event)
        if not reference:
            self._sizes[node] = self._values - before
        return node

    def compose_mapping_node(self, anchor: Any) -> MappingNode:
        """Keys are text, whatever they look like, and each is there once."""
        node: MappingNode = super().compose_mapping_node(anchor)
        pairs, seen = [], set()
        for key, value in node.value:
            if not isinstance(key, ScalarNode):
                raise _refusal("a key is a word, not a list or a mapping", key)
            if key.value in seen:
                raise _refusal(f"the key {shown(key.value)!r} is there twice", key)
            seen.add(key.value)
            tag = key.tag if key.tag == f"{_TAG}merge" else f"{_TAG}str"
            # A node of its own: a reference may use the same one as a value.
            pairs.append((ScalarNode(tag, key.value, key.start_mark, key.end_mark), value))
        node.value = pairs
        return node


def _refusal(problem: str, at: Any) -> yaml.YAMLError:
    """`at`: a node or an event."""
    return yaml.MarkedYAMLError(None, None, problem, at.start_mark)


def _null(loader: _Loader, node: ScalarNode) -> None:
    if _word(loader, node) not in _NULLS:
        raise _refusal(f"{shown(node.value)!r} is not null", node)


def _word(loader: _Loader, node: ScalarNode) -> str:
    return str(loader.construct_scalar(node))


def _boolean(loader: _Loader, node: ScalarNode) -> bool:
    if (value := _BOOLEANS.get(_word(loader, node))) is None:
        raise _refusal(f"{shown(node.value)!r} is neither true nor false", node)
    return value


def _integer(loader: _Loader, node: ScalarNode) -> int:
    text = _word(loader, node)
    if not _INTEGER.fullmatch(text):
        raise _refusal(f"{shown(text)!r} is no whole number", node)
    digits = text.replace("_", "").lstrip("+")
    plain = digits.lstrip("-")
    if len(plain) > DIGITS + 2 * plain.startswith("0"):
        raise _refusal(f"{shown(text, 40)} has more than {DIGITS} digits", node)
    if re.fullmatch(r"0[0-7]+", plain):  # octal, as YAML 1.1 and Go write it
        return int(digits, 8)
    try:
        return int(digits, 0)
    except ValueError:  # `0x_`
        raise _refusal(f"{shown(text)!r} is no whole number", node) from None


def _float(loader: _Loader, node: ScalarNode) -> float:
    text = _word(loader, node).replace("_", "").lower()
    special = {".inf": "inf", "+.inf": "inf", "-.inf": "-inf", ".nan": "nan"}
    try:
        return float(special.get(text, text))
    except ValueError:
        raise _refusal(f"{shown(node.value)!r} is no number", node) from None


def _sequence(loader: _Loader, node: Node) -> Iterator[list[Any]]:
    made: list[Any] = []
    yield made
    if not isinstance(node, SequenceNode):
        raise _refusal("a list was announced", node)
    made.extend(loader.construct_sequence(node))


def _mapping(loader: _Loader, node: Node) -> Iterator[dict[Any, Any]]:
    made: dict[Any, Any] = {}
    yield made
    if not isinstance(node, MappingNode):
        raise _refusal("a mapping was announced", node)
    made.update(loader.construct_mapping(node))


def _unknown(_loader: _Loader, node: Node) -> NoReturn:
    raise _refusal(f"the tag {shown(node.tag).removeprefix(_TAG)} is none of JSON's types; leave it out", node)


_SPECIAL = re.compile(r"[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)")
for _name, _read, _forms, _first in (
    ("bool", _boolean, re.compile("|".join(_BOOLEANS)), "yYnNtTfFoO"),
    ("int", _integer, _INTEGER, "-+0123456789"),
    ("float", _float, re.compile(f"{_FLOAT.pattern}|{_SPECIAL.pattern}"), "-+.0123456789"),
    ("null", _null, re.compile("|".join(_NULLS)), ["~", "n", "N", ""]),
    ("merge", None, re.compile("<<"), "<"),
    ("str", _word, None, ""),
    ("seq", _sequence, None, ""),
    ("map", _mapping, None, ""),
):
    if _read is not None:
        _Loader.add_constructor(f"{_TAG}{_name}", _read)
    if _forms is not None:
        _Loader.add_implicit_resolver(f"{_TAG}{_name}", re.compile(f"(?:{_forms.pattern})$"), list(_first))
_Loader.add_constructor(None, _unknown)
