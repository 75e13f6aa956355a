"""Options that the commands share; named as kubectl's."""

from __future__ import annotations

import argparse
import json
import re
from typing import Any


def connection(parser: argparse.ArgumentParser) -> None:
    """Which cluster and namespace (`viper_operator.plugin.api.connect`)."""
    group = parser.add_argument_group("cluster")
    group.add_argument(
        "-n", "--namespace", type=_namespace, metavar="NAMESPACE", help="namespace (default: that of the context)"
    )
    group.add_argument("--context", metavar="NAME", help="context of the kubeconfig (default: the current one)")
    group.add_argument("--kubeconfig", metavar="FILE", help="kubeconfig (default: $KUBECONFIG, ~/.kube/config)")


def _namespace(text: str) -> str:
    if not re.fullmatch(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?", text):
        raise argparse.ArgumentTypeError(
            f"{text[:80]!r} is no namespace: at most 63 lower-case letters, digits and '-'"
        )
    return text


def output(parser: argparse.ArgumentParser, *formats: str) -> None:
    """`-o`."""
    parser.add_argument("-o", "--output", choices=formats, default="", metavar="FORMAT", help=" | ".join(formats))


def written(data: Any, form: str) -> str:
    """Data as `json` or `yaml`, with a line end."""
    if form == "json":
        return json.dumps(data, indent=2, ensure_ascii=False) + "\n"
    import yaml

    return str(yaml.safe_dump(data, sort_keys=False, allow_unicode=True, width=120))
