"""Rows of files in which every row counts (questions, cold-start samples): a bad one is an error, with its line."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from viper.beside import read_beside, shortened
from viper.errors import InputError
from viper.images import SUPPLIED, Unusable, check
from viper.ingest.rows import no_chat_marks, prompt_of
from viper.store import ObjectStore


@dataclass(frozen=True)
class CheckedImage:
    """An image file that can be decoded; `upright`: its pixels are stored the right way up."""

    data: bytes
    upright: bool


def checked(
    store: ObjectStore, prompt: str, answer: str, images: Sequence[str]
) -> tuple[str, tuple[CheckedImage, ...]]:
    """The prompt without the marks of its images, and the images, decoded once to see that they can be.

    Raises:
        InputError: the row cannot be used: an image, or a mark that stands for more than text.
        StoreError: the store fails.
    """
    try:
        no_chat_marks(answer)
        text = prompt_of(prompt, len(images))
    except Unusable as problem:
        raise InputError(problem.detail) from None
    if not text:
        raise InputError("the prompt is empty")
    return text, tuple(_image(store, name) for name in images)


def image_beside(store: ObjectStore, name: str) -> bytes:
    """The bytes of an image beside a supplied file; raises `InputError`, `StoreError`."""
    try:
        return read_beside(store, name, SUPPLIED)
    except Unusable as problem:
        raise InputError(problem.detail) from None


def _image(store: ObjectStore, name: str) -> CheckedImage:
    data = image_beside(store, name)
    try:
        return CheckedImage(data, check(data))
    except Unusable as problem:
        raise InputError(f"the image {shortened(name)} cannot be read ({problem})") from None
