from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import Path

import pytest
from report_builders import Plan, build_iteration, build_loop

from viper.report.page import build
from viper.store import DirectoryStore

Loop = tuple[DirectoryStore, list[str]]
VOID = {"meta", "img", "br", "hr", "line", "circle", "path", "polyline"}


class Outline(HTMLParser):
    """Checks nesting, collects ids, links, tags and the text outside of styles."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.ids: list[str] = []
        self.attributes: list[tuple[str, dict[str, str]]] = []
        self.text: list[str] = []
        self.feed(html)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = {k: v or "" for k, v in attrs}
        self.attributes.append((tag, values))
        if "id" in values:
            self.ids.append(values["id"])
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag not in VOID:
            assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if "style" not in self.open:
            self.text.append(data)

    @property
    def words(self) -> str:
        return " ".join(" ".join(self.text).split())

    def all(self, tag: str) -> list[dict[str, str]]:
        return [attributes for name, attributes in self.attributes if name == tag]


@pytest.fixture(scope="session")
def html(loop: Loop, tmp_path_factory: pytest.TempPathFactory) -> str:
    lines = ["mlflow server --backend-store-uri sqlite:///mlflow.db", "xdg-open http://127.0.0.1:5000"]
    return build(*loop, tmp_path_factory.mktemp("page"), registry_lines=lines).read_text("utf-8")


@pytest.fixture
def store(tmp_path: Path) -> DirectoryStore:
    return DirectoryStore(tmp_path / "store")


def page_of(store: DirectoryStore, tmp_path: Path, **changes: object) -> Outline:
    build_iteration(store, tmp_path / "work", Plan(**{"images": 16, **changes}))  # type: ignore[arg-type]
    return Outline(build(store, ["demo-1"], tmp_path / "out").read_text("utf-8"))


def test_elements_are_closed_and_ids_are_unique(html: str) -> None:
    outline = Outline(html)
    assert outline.open == []
    assert len(outline.ids) == len(set(outline.ids))
    targets = [a["href"][1:] for a in outline.all("a")]
    assert targets
    assert set(targets) <= set(outline.ids)


def test_the_page_has_no_script_and_asks_nothing_of_the_network(html: str) -> None:
    outline = Outline(html)
    assert not outline.all("script")
    assert not outline.all("link")
    assert not outline.all("iframe")
    assert all(a["href"].startswith("#") for a in outline.all("a"))
    assert all(i["src"].startswith("data:image/webp;base64,") for i in outline.all("img"))
    assert "url(" not in html
    assert "@import" not in html
    assert not [k for _, a in outline.attributes for k in a if k.startswith("on")]
    policy = next(m["content"] for m in outline.all("meta") if "http-equiv" in m)
    assert policy.startswith("default-src 'none'")


def test_the_page_says_the_result_in_words_first(html: str) -> None:
    words = Outline(html).words
    assert "Held-out accuracy got better: θ2 of demo-3 against the starter" in words
    assert words.index("got better") < words.index("What the models wrote and drew")


def test_every_picture_has_a_text_and_every_chart_its_figures_as_a_table(html: str) -> None:
    outline = Outline(html)
    assert len(outline.all("img")) >= 40
    assert all(i["alt"] for i in outline.all("img"))
    assert all(s.get("aria-label") or s.get("aria-hidden") for s in outline.all("svg"))
    for chart in (
        "Held-out accuracy",
        "GRPO stage 1: caption self-refining",
        "GRPO stage 2: visual-operation predicting",
        "Task 1: caption self-refining",
        "Task 2: visual-operation predicting",
        "Edit categories",
    ):
        assert f"<summary>{chart} as a table</summary>" in html


def test_retries_and_answers_that_stayed_invalid_are_counted(html: str) -> None:
    assert re.search(
        r'<th scope="row">demo-1</th><td class="nowrap">instruction</td>(<td class="nowrap">\d+</td>){3}', html
    )


def test_outputs_of_the_first_and_last_step_show_what_was_rewarded(html: str) -> None:
    words = Outline(html).words
    best, worst = (f"<think>Zoom in on step 24</think>The ball is red. {k}" for k in (4, 0))
    assert f"24 The ball is blue. {best} reward 0.800, recall 0.50 {worst} reward 0.000, recall 0.50" in words
    assert "<think>Look at step 1</think>The ball is red. 4 reward 0.800" in words


def test_the_words_of_reasoning_are_shown_before_and_after_each_training(html: str) -> None:
    outline = Outline(html)
    clouds = [a["aria-label"] for tag, a in outline.attributes if tag == "svg" and a.get("class") == "cloud"]
    assert len(clouds) == 3 * 2 * 2
    assert "Words of reasoning of demo-1, captions, before" in clouds
    # Of three prompts with five outputs each: "Look at step 1" has three words, and two of them are an operation.
    assert "before: step 1 15 outputs, 45 words, 333.3 operations in a thousand words" in outline.words
    assert "zoom in 0 15" in outline.words


def test_a_rollout_file_with_a_torn_line_is_read_up_to_it(store: DirectoryStore, tmp_path: Path) -> None:
    from viper.report.collect import collect_iteration
    from viper.report.outputs import outputs

    build_iteration(store, tmp_path / "work", Plan(images=8, until="train-captions"))
    key = "iterations/demo-1/stages/train-captions/rollouts/00000.jsonl"
    store.put(key, store.get(key).splitlines(keepends=True)[0] + b'{"step": 1, "sam')
    iteration = collect_iteration(store, "demo-1")
    assert [p.step for p in outputs(store, iteration, iteration.trainings[0])] == [1]


def test_scrolling_tables_can_be_reached_with_the_keyboard(html: str) -> None:
    scrolling = [a for _, a in Outline(html).attributes if a.get("class") == "scroll"]
    assert scrolling
    assert all(a["tabindex"] == "0" and a["aria-label"] for a in scrolling)


def test_the_registry_lines_are_there_as_given(html: str) -> None:
    assert "mlflow server --backend-store-uri sqlite:///mlflow.db\nxdg-open http://127.0.0.1:5000" in html


def test_provenance_leads_to_manifests_models_and_the_tracking_run(loop: Loop, html: str) -> None:
    from viper.report.collect import collect_iteration

    iteration = collect_iteration(loop[0], "demo-2")
    manifest = iteration.stage("train-captions")
    assert manifest is not None
    for expected in (
        iteration.frozen.identity,
        iteration.frozen.generator.digest,
        iteration.frozen.tracking.parent_run,
        manifest.content_digest,
        manifest.outputs["model"]["digest"],
    ):
        assert expected in html


def test_settings_that_differ_from_the_paper_are_listed_with_both_values(html: str) -> None:
    row = re.search(r"<code>captions.training.learningRate</code></th><td>(.*?)</td><td>(.*?)</td>", html)
    assert row
    assert row.groups() == ("2e-05", "1e-06")


def test_three_iterations_stay_below_three_megabytes(html: str) -> None:
    assert len(html.encode()) < 3_000_000


def test_many_iterations_share_the_gallery(store: DirectoryStore, tmp_path: Path) -> None:
    names = build_loop(store, tmp_path / "work", iterations=6, images=8)
    size = build(store, names, tmp_path / "out").stat().st_size
    assert size < 3_000_000


def test_the_same_store_gives_the_same_bytes(loop: Loop, tmp_path: Path) -> None:
    first = build(*loop, tmp_path / "a").read_bytes()
    assert build(*loop, tmp_path / "b").read_bytes() == first
    assert build(*loop, tmp_path / "b").read_bytes() == first


def test_a_held_iteration_stands_out(store: DirectoryStore, tmp_path: Path) -> None:
    page = page_of(store, tmp_path, decision="held", gain=-0.08)
    assert "Held-out accuracy got WORSE" in page.words
    assert "θ2 is significantly worse than θ0" in page.words
    assert any(a.get("class") == "badge held" for a in page.all("span"))
    assert any("headline bad" in a.get("class", "") for a in page.all("section"))


def test_an_unfinished_iteration_has_a_page(store: DirectoryStore, tmp_path: Path) -> None:
    page = page_of(store, tmp_path, running="train-captions")
    assert "train-captions (begun (caption 10/64))" in page.words
    assert "No held-out evaluation yet" in page.words
    assert len(page.all("img")) > 0


def test_an_iteration_that_has_only_just_begun_has_a_page(store: DirectoryStore, tmp_path: Path) -> None:
    page = page_of(store, tmp_path, running="ingest-images")
    assert "ingest-images (begun (caption 10/64))" in page.words


def test_a_page_without_any_iteration_says_so(store: DirectoryStore, tmp_path: Path) -> None:
    page = Outline(build(store, ["demo-1"], tmp_path / "out").read_text("utf-8"))
    assert "No iteration has started." in page.words
    assert "not started" in page.words


def test_zero_accepted_samples_are_shown_with_their_reasons(store: DirectoryStore, tmp_path: Path) -> None:
    page = page_of(store, tmp_path, accept=False, until="validate-captions")
    assert "0.0 % accepted" in page.words
    assert "recipe.validation.minimumSamples is 1" in page.words
    assert any(a.get("class") == "badge rejected" for a in page.all("span"))


def test_a_finished_iteration_without_questions_has_a_page(store: DirectoryStore, tmp_path: Path) -> None:
    page = page_of(store, tmp_path, evaluate=False)
    assert "nothing can be said about perception" in page.words
    assert "accuracy" not in page.ids


def test_model_text_is_shown_and_never_interpreted(store: DirectoryStore, tmp_path: Path) -> None:
    hostile = '<script>alert(1)</script> "><img src=x onerror=alert(1)> {{ 7*7 }} \u202egnirts \x00&amp;'
    page = page_of(store, tmp_path, caption=hostile, instruction=hostile)
    assert not page.all("script")
    assert all(i["src"].startswith("data:") for i in page.all("img"))
    assert '<script>alert(1)</script> "><img src=x onerror=alert(1)> {{ 7*7 }} gnirts &amp;' in page.words


def test_long_model_text_is_cut(store: DirectoryStore, tmp_path: Path) -> None:
    page = page_of(store, tmp_path, caption="word " * 5000, until="synthesize-captions")
    assert "…" in page.words
    assert page.words.count("word") < 5000


def test_pictures_that_cannot_be_read_leave_a_place(store: DirectoryStore, tmp_path: Path) -> None:
    from viper.report.gallery import thumbnail

    assert thumbnail(b"not a picture") == ""
    assert thumbnail(b"") == ""
    assert thumbnail(None) == ""


def test_a_report_that_cannot_be_written_says_where(loop: Loop, tmp_path: Path) -> None:
    from viper.errors import StoreError

    (tmp_path / "file").write_text("in the way")
    with pytest.raises(StoreError, match="cannot be written"):
        build(*loop, tmp_path / "file")
