"""A profile's own pod template over the generated one."""

from __future__ import annotations

from typing import Any

import pytest

from viper_operator.merge import merged


@pytest.mark.parametrize(
    ("base", "change", "expected"),
    [
        ({"a": 1, "b": {"c": 2}}, {"b": {"d": 3}}, {"a": 1, "b": {"c": 2, "d": 3}}),
        ({"a": 1, "b": 2}, {"b": None}, {"a": 1}),
        ({"args": ["a", "b"]}, {"args": ["c"]}, {"args": ["c"]}),
        (
            {"containers": [{"name": "stage", "image": "x", "env": [{"name": "A", "value": "1"}]}]},
            {"containers": [{"name": "stage", "env": [{"name": "A", "value": "2"}, {"name": "B"}]}, {"name": "side"}]},
            {
                "containers": [
                    {"name": "stage", "image": "x", "env": [{"name": "A", "value": "2"}, {"name": "B"}]},
                    {"name": "side"},
                ]
            },
        ),
        (
            {"volumeMounts": [{"name": "work", "mountPath": "/work"}]},
            {"volumeMounts": [{"name": "big", "mountPath": "/work"}, {"name": "work", "mountPath": "/more"}]},
            {"volumeMounts": [{"name": "big", "mountPath": "/work"}, {"name": "work", "mountPath": "/more"}]},
        ),
        ({}, {"tolerations": [{"key": "gpu"}]}, {"tolerations": [{"key": "gpu"}]}),
        ({"tolerations": [{"key": "a"}]}, {"tolerations": [{"key": "b"}]}, {"tolerations": [{"key": "b"}]}),
    ],
)
def test_maps_are_merged_lists_by_name_or_replaced_and_null_removes(base: Any, change: Any, expected: Any) -> None:
    assert merged(base, change) == expected
