"""The product as a person meets it: chart in a restricted namespace, a loop applied, versions promoted, a browser."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from released import MODEL, forwarded, release, seen, store_credentials
from watched import run_watched

from fakes import world
from servers.node import OneNode
from viper.registry import Registry
from viper.registry.moves import ALIAS_MOVE
from viper.registry.tags import PARENT_VERSION
from viper.stage import load_frozen
from viper.store import open_store
from viper_operator.plugin.main import main as kubectl_viper
from watcher.judge import judge, report
from watcher.timeline import Object

pytestmark = [pytest.mark.cluster, pytest.mark.slow, pytest.mark.torch]

ROOT = Path(__file__).parents[2]
#: What a browser showed is kept here.
SCREENSHOTS = Path(os.environ.get("VIPER_SCREENSHOTS", ROOT / "runs" / "screenshots"))
#: Seconds for which something may be said that is not so any more, on a machine with other tests on it.
LATE = 60.0


@pytest.fixture(scope="module")
def released(one_node: OneNode) -> Iterator[str]:
    """A namespace that enforces `restricted`, with the chart in it."""
    with release(one_node) as namespace:
        yield namespace


@pytest.fixture(scope="module")
def timeline(one_node: OneNode, released: str) -> list[Object]:
    """What was done and said until a loop had ended well."""
    return run_watched(one_node, released, 2, minutes=40)


@pytest.fixture(scope="module")
def promoted(released: str, timeline: list[Object]) -> str:
    """The namespace after that."""
    return released


@pytest.mark.timeout(4800)
def test_the_next_iteration_of_a_loop_is_written_by_the_version_promoted_before(
    one_node: OneNode, promoted: str
) -> None:
    first, second = (seen(one_node, promoted, f"viperiteration/evolve-{n}")["status"] for n in (1, 2))
    assert [first["outcome"], second["outcome"]] == ["Promoted", "Promoted"]
    assert (first["generator"]["version"], first["version"]) == (1, 2)
    assert (second["generator"]["version"], second["version"]) == (2, 3)
    assert all(stage["state"] == "Succeeded" for stage in first["stages"] + second["stages"])
    status = seen(one_node, promoted, "viperloop/evolve")["status"]
    assert (status["iteration"], status["version"]) == (2, 3)
    assert not [pod for pod in seen(one_node, promoted, "pods")["items"] if pod["status"]["phase"] == "Failed"]


@pytest.mark.timeout(600)
def test_nothing_that_was_said_of_the_loop_was_not_so(timeline: list[Object]) -> None:
    assert report(judge(timeline, LATE)) == ""


@pytest.mark.timeout(600)
def test_the_data_are_in_minio_and_the_version_with_its_lineage_in_mlflow(
    one_node: OneNode, promoted: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in store_credentials(one_node, promoted).items():
        monkeypatch.setenv(name, value)
    with forwarded(one_node, promoted, "viper-minio", 9000) as port:
        store = open_store(f"s3://viper?endpoint=http://127.0.0.1:{port}")
        for name in ("evolve-1", "evolve-2"):
            frozen = load_frozen(store, name)
            assert frozen is not None
            assert all(world.manifests(store, frozen).values())
    with forwarded(one_node, promoted, "viper-mlflow", 5000) as port:
        registry = Registry(f"http://127.0.0.1:{port}")
        assert registry.get_alias(MODEL, "generator") == 3
        version = registry.get(MODEL, 3)
        assert version.tags[PARENT_VERSION] == "2"
        assert version.source_uri.startswith("s3://viper")


@pytest.mark.timeout(600)
def test_a_browser_finds_the_version_its_alias_its_lineage_and_its_scores(one_node: OneNode, promoted: str) -> None:
    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    assert chromium, "no chromium: apt-get install chromium"
    SCREENSHOTS.mkdir(parents=True, exist_ok=True)
    browser = [
        chromium,
        "--headless=new",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-dev-shm-usage",
        "--hide-scrollbars",
    ]
    browser += ["--window-size=1400,1600", "--virtual-time-budget=60000"]
    with forwarded(one_node, promoted, "viper-mlflow", 5000) as port:
        pages = {
            "model": (f"http://127.0.0.1:{port}/#/models/{MODEL}", ["Version 3", "generator", "viper.scores"]),
            "version": (
                f"http://127.0.0.1:{port}/#/models/{MODEL}/versions/3",
                ["Version 3", "generator", "viper.base_version", "evolve-2"],
            ),
        }
        for name, (address, words) in pages.items():
            picture = SCREENSHOTS / f"{name}.png"
            subprocess.run([*browser, f"--screenshot={picture}", address], check=True, capture_output=True, timeout=200)
            page = subprocess.run(
                [*browser, "--dump-dom", address], check=True, capture_output=True, text=True, timeout=200
            ).stdout
            assert picture.stat().st_size > 10_000
            assert all(word in page for word in words), page[-5000:]


@pytest.mark.timeout(600)
def test_a_person_moves_the_alias_back_and_forth_and_both_moves_are_recorded(
    one_node: OneNode, promoted: str, capsys: pytest.CaptureFixture[str]
) -> None:
    where = ["-n", promoted, "--kubeconfig", str(one_node.kubeconfig)]
    assert kubectl_viper(["rollback", MODEL, *where, "--reason", "reads worse"]) == 0
    assert f"{MODEL}@generator: version 3 → version 2" in capsys.readouterr().out
    assert kubectl_viper(["promote", "evolve-2", *where]) == 0
    assert f"{MODEL}@generator: version 2 → version 3" in capsys.readouterr().out
    with forwarded(one_node, promoted, "viper-mlflow", 5000) as port:
        registry = Registry(f"http://127.0.0.1:{port}")
        assert registry.get_alias(MODEL, "generator") == 3
        moves = {
            v.version: [n for t, n in v.tags.items() if t.startswith(ALIAS_MOVE)] for v in registry.versions(MODEL)
        }
    assert [len(moves[number]) for number in (1, 2, 3)] == [0, 1, 1]
    assert "rolled back" in moves[2][0]
    assert "reads worse" in moves[2][0]
    assert "promoted by" in moves[3][0]
