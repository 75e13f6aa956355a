"""What lies in a store and is read again: by this release, by the ones to come, and by an older one beside them.

People's files are strict (`viper.spec.base.SpecModel`): an unknown field is a mistake. What a program wrote is not: an
unknown field is a later release's, and is kept and left alone. Every form says which one it is (`schemaVersion`) and
the least release that understands it (`minVersion`); what it is known by is taken from what was stored, never from what
a model makes of it.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import fields
from typing import Any, ClassVar, Self

from pydantic import BaseModel, ConfigDict, PrivateAttr, ValidationError, model_validator

import viper
from viper.digests import digest_of
from viper.errors import NewerFormError, StoreError, ViperError
from viper.spec.base import SpecModel, first_problem, setting
from viper.spec.forms import STORED

SCHEMA_VERSION, MIN_VERSION = "schemaVersion", "minVersion"
#: The first release that says what its forms are; what 0.1.0 wrote says nothing and is form 0.
FIRST = "0.2.0"
#: Of what says how a form is to be read, nothing is content: the same work has one digest whichever release did it.
ENVELOPE = frozenset({SCHEMA_VERSION, MIN_VERSION})
#: What to do about an object that cannot be read. Its work may be all there is: no advice ends in its removal.
KEEP = "restore this object from a copy of the store, or run the iteration under another name; what is there stays"

_DEEPEST = 100
_LARGEST = 2**63
_VERSION = re.compile(r"(\d{1,9})\.(\d{1,9})\.(\d{1,9})(?:(a|b|rc)(\d{1,9}))?(?:\.dev(\d{1,9}))?", re.ASCII)
_FINAL = 3
_SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")


class StoredPart(SpecModel):
    """Base of what is part of a stored form: fields of a later release are kept."""

    model_config = ConfigDict(extra="allow")


class StoredForm(StoredPart):
    """Base of what is stored as an object of its own.

    `FORM`: the newest form that this release reads. `WHAT`: what it is called. `FIX`: what to do about one that cannot
    be read. A change that an older reader would
    misunderstand takes the next number, and the release that brings it as `SINCE`; a further field takes neither.
    """

    FORM: ClassVar[int] = 1
    SINCE: ClassVar[str] = FIRST
    WHAT: ClassVar[str] = "what it should be"
    FIX: ClassVar[str] = KEEP

    schema_version: int = setting(1, ge=0, description="Form of this object; 0: written before forms had numbers.")
    min_version: str = setting("", description="The least release of viper that understands it.")

    _content: dict[str, Any] | None = PrivateAttr(None)

    @model_validator(mode="before")
    @classmethod
    def _envelope(cls, data: Any) -> Any:
        """What is made now says so."""
        if not isinstance(data, dict) or data.keys() & {SCHEMA_VERSION, "schema_version"}:
            return data
        least = {} if data.keys() & {MIN_VERSION, "min_version"} else {MIN_VERSION: cls.SINCE}
        return {SCHEMA_VERSION: cls.FORM, **least, **data}

    @classmethod
    def of(cls, content: Mapping[str, Any], *, where: str = "", error: type[ViperError] = StoreError) -> Self:
        """From the JSON object that was stored; raises `NewerFormError`, `error`."""
        check_form(content, cls.FORM, what=cls.WHAT, where=where, error=error, fix=cls.FIX)
        try:
            made = cls.model_validate({SCHEMA_VERSION: 0, **content}, context=STORED)
        except ValidationError as problem:
            raise error(f"is not {cls.WHAT}: {first_problem(problem)}", where=where, fix=cls.FIX) from None
        made._content = dict(content)
        return made

    @classmethod
    def read(cls, data: bytes, *, where: str = "", error: type[ViperError] = StoreError) -> Self:
        """From an object's bytes; raises `NewerFormError`, `error`."""
        content = read_object(data, what=cls.WHAT, where=where, error=error, fix=cls.FIX)
        return cls.of(content, where=where, error=error)

    @property
    def content(self) -> dict[str, Any]:
        """The JSON object as it was stored; of what was made here, as it will be."""
        return self.dump() if self._content is None else self._content

    def to_bytes(self) -> bytes:
        """What is stored of it."""
        return (json.dumps(self.content, indent=1, sort_keys=True, ensure_ascii=False) + "\n").encode()

    def model_copy(self, *, update: Mapping[str, Any] | None = None, deep: bool = False) -> Self:
        """As pydantic's; a copy with other content is no longer what was stored."""
        made = super().model_copy(update=update, deep=deep)
        if update:
            made._content = None
        return made

    def read_as(self, **update: Any) -> Self:
        """The same stored object, with fields as this reader sees them (a URI in full)."""
        made = super().model_copy(update=update)
        made._content = self.content
        return made

    def __eq__(self, other: object) -> bool:
        """By what is in the fields, wherever it was read."""
        if not isinstance(other, type(self)):
            return NotImplemented
        return self.__dict__ == other.__dict__ and self.__pydantic_extra__ == other.__pydantic_extra__

    __hash__ = None  # type: ignore[assignment]  # its fields are maps


def content_digest(content: Mapping[str, Any], *without: str) -> str:
    """sha256 over a stored JSON object, without its envelope and the fields named."""
    return digest_of({key: value for key, value in content.items() if key not in ENVELOPE and key not in without})


def enveloped(content: Mapping[str, Any]) -> dict[str, Any]:
    """A JSON object that is no model, as a form of this release."""
    return {SCHEMA_VERSION: 1, MIN_VERSION: FIRST, **content}


def known(kind: type[Any], content: Mapping[str, Any]) -> dict[str, Any]:
    """Of a stored object the fields that a dataclass of this release has: a later release may have written more."""
    names = {field.name for field in fields(kind)}
    return {name: value for name, value in content.items() if name in names}


def read_content(
    data: bytes, *, what: str, where: str = "", error: type[ViperError] = StoreError, names: bool = False
) -> dict[str, Any]:
    """What `enveloped` wrote, or the same from before envelopes; raises `NewerFormError`, `error`."""
    found = read_object(data, what=what, where=where, error=error, names=names)
    check_form(found, what=what, where=where, error=error)
    return {key: value for key, value in found.items() if key not in ENVELOPE}


def read_object(
    data: bytes,
    *,
    what: str,
    where: str = "",
    error: type[ViperError] = StoreError,
    fix: str = KEEP,
    names: bool = False,
) -> dict[str, Any]:
    """The one door for JSON from a store: an object of plain values, else `error` says what is wrong.

    Refused are: bytes that are not UTF-8 or not JSON, another value than an object, a name twice in one object, numbers
    that no 64 bits hold, half of a surrogate pair, and more than a hundred levels. With `names`, a half stands for a
    byte of a file's name that is no UTF-8, as Python has it.
    """
    try:
        text = data.decode("utf-8")
        value = json.loads(text, object_pairs_hook=_once, parse_int=_whole, parse_float=_finite)
        if not names and _SURROGATE.search(text):
            json.dumps(value, ensure_ascii=False).encode()
        if not isinstance(value, dict):
            raise ValueError(f"a JSON object is expected, this is {_named(value)}")
        _check_depth(value)
    except RecursionError:
        raise error(f"is not {what}: it is nested too deeply", where=where, fix=fix) from None
    except (UnicodeDecodeError, UnicodeEncodeError) as problem:
        raise error(f"is not {what}: not valid Unicode ({problem.reason})", where=where, fix=fix) from None
    except ValueError as problem:
        raise error(f"is not {what}: {problem}", where=where, fix=fix) from None
    return value


def check_form(
    content: Mapping[str, Any],
    newest: int = 1,
    *,
    what: str,
    where: str = "",
    error: type[ViperError] = StoreError,
    fix: str = KEEP,
) -> int:
    """The number of a stored form; 0 where it has none.

    Raises `NewerFormError` when it is not for this release, which names the one that it is for; `error` when that
    cannot be told.
    """
    form, least = content.get(SCHEMA_VERSION, 0), content.get(MIN_VERSION, "")
    if not isinstance(form, int) or isinstance(form, bool) or form < 0 or not isinstance(least, str):
        raise error(f"is not {what}: its {SCHEMA_VERSION} or {MIN_VERSION} is none", where=where, fix=fix)
    try:
        newer = bool(least) and release(least) > release(viper.__version__)
    except ValueError as problem:
        raise error(f"is not {what}: {MIN_VERSION}: {problem}", where=where, fix=fix) from None
    if newer or form > newest:
        needed = f"viper {least}" if newer else "a newer viper"
        raise NewerFormError(
            f"is {what} that needs {needed}; this is viper {viper.__version__}",
            where=where,
            fix=f"use {needed} or later; everything stays as it is until then",
        )
    return form


def least_version(model: BaseModel, least: str = FIRST) -> str:
    """The least release that can carry out a specification: `since` of the newest field that is not its default."""
    return max([least, *_since(model)], key=release)


def release(version: str) -> tuple[int, ...]:
    """A version of viper as something that sorts: `0.9.0` before `0.10.0rc1` before `0.10.0`; raises `ValueError`."""
    found = _VERSION.fullmatch(version)
    if found is None:
        raise ValueError(f"{version[:40]!r} is no version")
    major, minor, patch, pre, number, dev = found.groups()
    rank = _FINAL if pre is None else ("a", "b", "rc").index(pre)
    # A development version comes before what it will become, one without a pre-release before its first one.
    before = (-1, 0) if pre is None and dev is not None else (rank, int(number or 0))
    return (int(major), int(minor), int(patch), *before, 1 if dev is None else 0, int(dev or 0))


def _since(value: Any) -> Iterator[str]:
    if isinstance(value, BaseModel):
        for name, field in type(value).model_fields.items():
            inner = getattr(value, name)
            extra = field.json_schema_extra
            since = extra.get("since") if isinstance(extra, dict) else None
            if isinstance(since, str) and (
                field.is_required() or inner != field.get_default(call_default_factory=True)
            ):
                yield since
            if isinstance(inner, BaseModel | Mapping | list | tuple):
                yield from _since(inner)
    elif isinstance(value, Mapping):
        yield from _each(value.values())
    elif isinstance(value, list | tuple):
        yield from _each(value)


def _each(values: Iterable[Any]) -> Iterator[str]:
    for value in values:
        yield from _since(value)


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"{twice[:40]!r} is there twice")
    return made


def _whole(digits: str) -> int:
    if len(digits) > 20 or abs(number := int(digits)) >= _LARGEST:
        raise ValueError(f"a number of {len(digits)} digits")
    return number


def _finite(text: str) -> float:
    if not math.isfinite(number := float(text)):
        raise ValueError(f"the number {text[:20]} is too large")
    return number


def _check_depth(value: Any) -> None:
    level = [value]
    for _ in range(_DEEPEST):
        level = [
            inner
            for outer in level
            for inner in (outer.values() if isinstance(outer, dict) else outer)
            if isinstance(inner, dict | list)
        ]
        if not level:
            return
    raise ValueError("it is nested too deeply")


def _named(value: Any) -> str:
    names = {list: "a list", str: "a text", bool: "true or false", int: "a number", float: "a number"}
    return "null" if value is None else names[type(value)]
