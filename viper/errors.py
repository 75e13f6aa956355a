"""Errors that are meant for a person: what is wrong, where, and what to do."""

import difflib
from collections.abc import Iterable

from viper.text import clean, without_credentials


def nearest(name: str, known: Iterable[str], otherwise: str = "") -> str:
    """The remedy for a name that is none of `known`: the nearest one, or all of them."""
    known = sorted(known)
    by_case = {k.lower(): k for k in known}
    near = difflib.get_close_matches(name.strip().lower(), by_case, n=1)
    listed = f"use one of {', '.join(known)}" + (f", or {otherwise}" if otherwise else "")
    return f"did you mean {by_case[near[0]]!r}? {listed}" if near else listed


class ViperError(Exception):
    """An error whose text a user can act on; the command line prints it without a traceback.

    Args:
        what: what is wrong, in one sentence.
        where: a field path, file, row or URI; empty when there is no place to point at.
        fix: what the reader can do about it; empty when nothing can be suggested honestly.
    """

    exit_code = 1

    def __init__(self, what: str, *, where: str = "", fix: str = "") -> None:
        # What is wrong is often in the words of a file, a server or a library, and is stored and shown.
        # A URL among them may hold a password.
        what, where, fix = (without_credentials(clean(text)) for text in (what, where, fix))
        self.what, self.where, self.fix = what, where, fix
        text = f"{where}: {what}" if where else what
        super().__init__(f"{text}\n  → {fix}" if fix else text)


class SpecError(ViperError):
    """The specification (YAML or JSON) is not valid."""

    exit_code = 2


class InputError(ViperError):
    """User data (images, samples, model directory) cannot be used."""

    exit_code = 3


class StoreError(ViperError):
    """The object store cannot be read or written (down, full, forbidden)."""

    exit_code = 4


class UnfitStoreError(StoreError):
    """The store does not do what everything here relies on: another attempt would meet the same."""

    exit_code = 9


class LockedError(StoreError):
    """Others have held a lock for longer than anybody waits."""


class AlreadyExistsError(StoreError):
    """A conditional create found an object under that key."""


class NotFoundError(StoreError):
    """There is no object under that key."""


class NewerFormError(StoreError):
    """What is stored needs a newer release than this one."""

    exit_code = 11


class ObjectError(StoreError):
    """This object cannot be read; the store is well, and so are the others."""


class DamagedError(ObjectError):
    """What is stored is not what its digests say."""


class RegistryError(ViperError):
    """The MLflow tracking server or registry cannot be used."""

    exit_code = 5


class UnfitRegistryError(RegistryError):
    """MLflow refuses what it is asked for: another attempt would meet the same."""

    exit_code = 9


class BusyError(ViperError):
    """Another process already works on this run directory."""

    exit_code = 6


class StageError(ViperError):
    """A stage cannot produce a valid manifest."""

    exit_code = 7


class SupersededError(StageError):
    """Another attempt has finished the stage: this one has nothing to add."""


class OvertakenError(StageError):
    """Another attempt wrote a part of this stage first, with other rows."""


class EngineError(ViperError):
    """An engine cannot do its work: memory, library, endpoint."""

    exit_code = 8


class UnfitEngineError(EngineError):
    """An engine cannot do its work as it is set up: another attempt would meet the same."""

    exit_code = 9
