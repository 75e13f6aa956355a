"""What is told never repeats a password, whoever wrote the text around it."""

from __future__ import annotations

import time

import pytest

from viper.errors import ViperError
from viper.text import without_credentials


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("http://ana:SECRET@host/x", "http://…@host/x"),
        ("s3://AKIA:SE/CR+ET@bucket/x", "s3://…@bucket/x"),
        ("https://SECRET@host", "https://…@host"),
        ("http://ana:SEC@RET@host", "http://…@host"),
        ("http://ana:SEC#RET@host", "http://…@host"),
        ("s3://b?endpoint=http://ana:SECRET@minio:9000", "s3://b?endpoint=http://…@minio:9000"),
        ("s3://b?endpoint=http%3A%2F%2Fana%3ASECRET%40h", "s3://b?endpoint=…"),
        ("https://h/x?X-Amz-Signature=SECRET&a=SECRET", "https://h/x?X-Amz-Signature=…&a=…"),
        ("https://h/x#access_token=SECRET", "https://h/x#access_token=…"),
        ("photos?token=SECRET", "photos?token=…"),
        ("openai:https://u:SECRET@h/v1#m", "openai:https://…@h/v1#m"),
        ("ana:SECRET@registry.example.org/viper:1", "…@registry.example.org/viper:1"),
        ("//ana:SECRET@mlflow:5000", "…@mlflow:5000"),
        ("is 'ana:SE:CR+ET@host' an image", "is '…@host' an image"),
        ("could not open 'http://u:SECRET@h' now", "could not open 'http://…@h' now"),
    ],
)
def test_credentials_are_hidden(text: str, shown: str) -> None:
    assert without_credentials(text) == shown
    error = ViperError(text, where=text, fix=text)
    assert not any("SECRET" in said for said in (str(error), error.what, error.where, error.fix))


@pytest.mark.parametrize(
    "text",
    [
        "hf://org/name@main",
        "models:/m@generator",
        "smallworld:scenes?count=3&seed=2",
        "s3://bucket/x?endpoint=http://minio:9000",
        "sqlite:////runs/mlflow.db",
        "bge-m3:models:/bge@live",
        "viper:1@sha256:0123",
        "registry.example.org:5000/viper:1@sha256:0123",
        "registry.example.org/viper@sha256:0123",
        "it.yaml: spec.x: at 12:30, a=b",
    ],
)
def test_everything_else_stays(text: str) -> None:
    assert without_credentials(text) == text


@pytest.mark.parametrize(
    "text",
    ["a://" * 5000, "key?key" * 5000, "?" + "key" * 10_000, "http://" + "a:" * 10_000, "(a:" * 9000, "a:" * 9000],
)
def test_it_takes_little_time_for_whatever_is_written(text: str) -> None:
    before = time.process_time()
    without_credentials(text)
    assert time.process_time() - before < 5
