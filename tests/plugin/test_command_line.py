"""`kubectl viper` as a person meets it, before it meets a cluster."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from viper_operator.plugin.main import KUBECTL_VIPER, command_first, main

HEAVY = ("kubernetes", "urllib3", "pydantic", "yaml", "kopf", "minio")


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("status evolve -w", "status evolve -w"),
        ("-n viper status evolve", "status -n viper evolve"),
        ("--namespace=viper --context prod logs x -f", "logs --namespace=viper --context prod x -f"),
        ("--kubeconfig f version", "version --kubeconfig f"),
        ("--help", "--help"),
        ("-n viper", "-n viper"),
        ("", ""),
    ],
)
def test_options_may_stand_before_the_command_as_kubectl_allows(given: str, expected: str) -> None:
    assert command_first(given.split()) == expected.split()


@pytest.mark.process
def test_help_lists_every_command_and_imports_nothing_heavy() -> None:
    code = (
        "import sys\nfrom viper_operator.plugin.main import main\n"
        "try:\n    main(['--help'])\nexcept SystemExit:\n    pass\n"
        "print([m for m in sys.argv[1:] if m in sys.modules], file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code, *HEAVY], capture_output=True, text=True, check=True)
    assert all(f"\n    {name}" in done.stdout for name in KUBECTL_VIPER.commands)
    assert done.stderr.strip() == "[]"


@pytest.mark.parametrize("command", KUBECTL_VIPER.commands)
def test_every_command_explains_itself(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main([command, "--help"])
    assert stop.value.code == 0
    assert capsys.readouterr().out.startswith(f"usage: kubectl viper {command} ")


def test_without_a_cluster_it_says_which_one_it_looked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("KUBECONFIG", raising=False)
    missing = str(tmp_path / "none.conf")
    assert main(["--kubeconfig", missing, "status"]) == 10
    error = capsys.readouterr().err
    assert error.startswith(f"error: {missing}: no cluster to talk to: ")
    assert "kubectl config get-contexts" in error


def test_an_api_server_that_does_not_answer_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = tmp_path / "c.conf"
    config.write_text(
        "{apiVersion: v1, kind: Config, current-context: c, users: [{name: u, user: {token: t}}],\n"
        " clusters: [{name: k, cluster: {server: 'http://127.0.0.1:1'}}],\n"
        " contexts: [{name: c, context: {cluster: k, user: u, namespace: there}}]}"
    )
    assert main(["status", "x", "--kubeconfig", str(config)]) == 10
    error = capsys.readouterr().err
    assert "http://127.0.0.1:1: the API server does not answer: " in error
    assert "refused" in error


def test_a_context_that_does_not_exist_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = tmp_path / "c.conf"
    config.write_text("{apiVersion: v1, kind: Config, current-context: '', users: [], clusters: [], contexts: []}")
    assert main(["status", "--kubeconfig", str(config), "--context", "prod"]) == 10
    assert "prod" in capsys.readouterr().err


def test_the_clients_own_version_needs_no_cluster(capsys: pytest.CaptureFixture[str]) -> None:
    from viper import __version__

    assert main(["version", "--client", "--kubeconfig", "/nowhere"]) == 0
    assert capsys.readouterr().out == f"client      {__version__}\n"


def test_a_missing_client_is_named(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setitem(sys.modules, "kubernetes", None)
    assert main(["status"]) == 10
    assert "pip install 'viper[operator]'" in capsys.readouterr().err
