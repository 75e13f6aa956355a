"""The report of an iteration whose stages nobody here has heard of."""

from __future__ import annotations

from pathlib import Path

from report import other_method
from viper.report import page, table
from viper.report.collect import collect_iteration
from viper.store import DirectoryStore


def test_a_report_shows_what_the_iterations_own_graph_declares(tmp_path: Path) -> None:
    store = DirectoryStore(tmp_path / "store")
    other_method.build(store, tmp_path / "work")
    i = collect_iteration(store, other_method.NAME)
    assert [(s.name, s.words) for s in i.stages] == [(node.name, "done") for node in other_method.GRAPH]
    assert i.images is not None
    assert i.images.accepted == 4
    assert [(f.task, f.title, f.made, f.accepted, f.rejected) for f in i.funnels] == [
        ("riddles", "Riddles", 4, 3, {"too-easy": 1}),
        ("supply-jokes", "supply-jokes", 2, 2, {}),
    ]
    assert [(t.stage, t.task, t.ends("reward/mean")) for t in i.trainings] == [
        ("solve-riddles", "riddles", (0.2, 0.4)),
        ("tell-jokes", "tell-jokes", (0.2, 0.4)),
    ]
    assert i.called(i.scores) == {"theta0": "θ0", "solver": "solver", "tell-jokes": "tell-jokes"}
    assert i.final == "tell-jokes"
    assert (i.state, i.problems) == ("promoted", ())


def test_its_page_and_its_table_say_so(tmp_path: Path) -> None:
    store = DirectoryStore(tmp_path / "store")
    other_method.build(store, tmp_path / "work")
    text = " ".join(table.summary_table(store, [other_method.NAME]).split())
    assert "riddles 4 3 1 75.0 %" in text
    assert "tell-jokes − θ0" in text
    assert "(tell-jokes of riddles-1)" in text
    html = page.build(store, [other_method.NAME], tmp_path / "out").read_text("utf-8")
    assert '<th scope="col" class="num">riddles</th>' in html
    for said in (
        "What is picture 1?",
        "a &lt;ball&gt;",
        "too-easy",
        "tell-jokes − θ0",
        "solver − θ0",
        "Reward, riddles",
    ):
        assert said in html, said
    assert "captions</th>" not in html
    assert "not as it is written" not in html
