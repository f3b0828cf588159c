"""The page about a competition's experiments, in a real browser; and the numbers that it is the first to show."""

import importlib
import json
import os
import re
import shutil
import time
from collections.abc import Callable, Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import ClassVar
from urllib.parse import unquote

import numpy as np
import pandas as pd
import pytest
import timm
import torch
from conftest import CONFIG, write_competition
from PIL import Image
from sklearn.metrics import precision_recall_fscore_support
from torch import nn

from foldcraft.common import config_file, errors, files
from foldcraft.common.callbacks import Callback
from foldcraft.common.config import BackboneConfig
from foldcraft.common.errors import FoldcraftError
from foldcraft.data import folds, splitting
from foldcraft.data.competition import read
from foldcraft.ensemble import nested
from foldcraft.ensemble.blend import Combined
from foldcraft.ensemble.decision_rules import Argmax
from foldcraft.ensemble.methods import LogPool
from foldcraft.ensemble.nested import BlendCandidate, BlendPlan, BlendSelection, Labels
from foldcraft.metrics import calibration, significance
from foldcraft.metrics.confident_learning import confident_classes
from foldcraft.metrics.spaces import ClassSpace
from foldcraft.models import backbones, checkpoint, gradcam
from foldcraft.predictions import store
from foldcraft.predictions.experiment import Experiment
from foldcraft.predictions.finished import FinishedExperiment
from foldcraft.predictions.store import Predictions
from foldcraft.views.report import blocks, charts, evidence, gallery, mistakes, page

NASTY = "</script><script>window.hacked = 1</script>"
BROWSERS = ("chromium", "chromium-browser", "chromium-headless-shell", "google-chrome")
CONFIGS = ["configs/tiny.yaml", "configs/vit.yaml"]


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder with a page about a CNN and a ViT, made by the commands as a user calls them."""
    folder = tmp_path_factory.mktemp("report")
    before = Path.cwd()
    os.chdir(folder)
    write_competition(Path("input/shapes"), train=48, group=True)
    text = CONFIG.replace("metric: accuracy", "metric: macro_f1, group: group").replace("count: 3", "count: 2")
    Path("configs").mkdir()
    Path(CONFIGS[0]).write_text(text)
    seldom = text.replace("epochs: 2", "epochs: 2, validate_every: 2")
    Path(CONFIGS[1]).write_text(seldom.replace("test_resnet", "test_vit").replace("size: 16", "size: 32"))
    studies = {
        "audit/summary.json": {
            "findings": [
                {
                    "name": "duplicates",
                    "severity": "warning",
                    "count": 2,
                    "sentence": f"two of a kind {NASTY}",
                    "ids": ["001.png"],
                },
                {
                    "name": "train_test_copies",
                    "severity": "warning",
                    "sentence": "9 pictures of the test set",
                },
                {
                    "name": "leaks",
                    "severity": "serious",
                    "count": 1,
                    "sentence": "one leak",
                    "ids": [],
                    "csv": "leaks.csv",
                },
            ],
            "not_looked_at": [f"predictions: {name} has folds that are not trained yet" for name in ("vit", "other")],
        },
        "check/tiny.json": {
            "sound": False,
            "checks": {
                "a": {"status": "pass", "title": "fine", "number": "1"},
                "b": {"status": "fail", "title": "first loss is that of guessing"},
            },
        },
        "diagnose/diagnosis.json": {
            "metric": "macro_f1",
            "nets": [{"name": "some_net", "score": 0.8, "low": 0.7, "high": 0.9, "last": 0.75, "neighbours": 0.7}],
            "curve": {"0.5": [0.7, 0.02], "1.0": [0.8, 0.0]},
            "views": [{"view": "hflip", "plain": {"value": 0.01, "error": 0.02}, "seen": 0.8, "keeps_label": True}],
            "advice": {"reasons": ["there is little data"]},
        },
        "audit/leaks.csv": "id\n",
    }
    for name, content in studies.items():
        path = Path("runs/shapes") / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content if isinstance(content, str) else json.dumps(content))
    steps = [
        ("split", ["--config", CONFIGS[0]]),
        *(("train", ["--config", each, "--fold", "all"]) for each in CONFIGS),
        ("train", ["--config", CONFIGS[0], "--fold", "0", "train.epochs=1", "experiment=other"]),
        ("infer", ["--config", *CONFIGS]),
        ("infer", ["--score", "shapes_tiny_vit", "public=0.125"]),
        ("report", ["--config", *CONFIGS]),
    ]
    for name, words in steps:
        assert importlib.import_module(name).main(words) == 0
    yield folder
    os.chdir(before)


@pytest.fixture(scope="module")
def html(home: Path) -> str:
    return (home / "runs/shapes/report.html").read_text()


class Browser:
    """A browser that notes whatever a page complains of or asks the network for."""

    def __init__(self, chromium: object) -> None:
        self.chromium, self.said = chromium, []

    def open(self, path: Path, width: int = 1366, theme: str = "light") -> object:
        self.said.clear()
        context = self.chromium.new_context(
            viewport={"width": width, "height": 844}, color_scheme=theme, reduced_motion="reduce"
        )
        tab = context.new_page()
        tab.on("console", lambda message: self.said.append(message.text))
        tab.on("pageerror", lambda error: self.said.append(str(error)))
        tab.on("request", lambda r: None if r.url.startswith(("file:", "data:")) else self.said.append(r.url))
        tab.goto(path.as_uri())
        tab.wait_for_selector("html[data-drawn]", state="attached", timeout=120_000)
        return tab


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Chromium, where there is one."""
    sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    found = next(filter(None, map(shutil.which, BROWSERS)), None)
    if not found:
        pytest.skip("no Chromium on this machine; `apt-get install chromium` has the page tested in it")
    with sync_api.sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=found, args=["--no-sandbox"])
        yield Browser(chromium)
        chromium.close()


class Links(HTMLParser):
    """The links, anchors and section titles of a page."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.links, self.ids, self.sources = [], set(), []
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = dict(attrs)
        self.links += [found["href"]] if tag == "a" else []
        self.sources += [found["src"]] if "src" in found else []
        self.ids |= {found.get("id")}


def test_page_holds_all_that_is_known(home: Path, html: str) -> None:
    ledger = pd.read_csv("submissions/ledger.csv", dtype=str)
    score = float(ledger["nested"][0])
    said = re.sub(r"\s+", " ", html)

    assert f'<dd class="value">{score:.4f}</dd>' in said, "the score is infer.py's"
    assert '<dd class="value">0.125</dd>' in said, "the leaderboard's word"
    forecast = float(ledger["forecast"][0])
    assert f'forecast of the hidden score</dt><dd class="value">{forecast:.4f}</dd>' in said
    for words in ("one leak", "two of a kind", "first loss is that of guessing", "there is little data", "some_net"):
        assert words in said, words
    short = said.split('id="headline"')[1].split("</section")[0]
    assert "mean less than it says: one leak, 9 pictures of the test set." in short
    assert '<a href="#audit">See Audit</a>' in short
    assert "two of a kind" not in short, "a warning that says nothing of the score"
    assert "other has folds that are not trained yet" in said
    assert "vit has folds that are not trained yet" not in said, "it was finished after the audit"
    assert "Other experiments are finished now than at the audit" in said
    keys = {"headline", "split", "audit", "training", "blend", "views", "classes", "confusions", "calibration"}
    keys |= {"mistakes", "diagnosis", "checks", "leaderboard", "board", "nets", "files"}
    assert keys <= Links(html).ids
    board = said.split('id="board"')[1].split("</section")[0]
    assert all(words in board for words in (">tiny<", ">vit<", ">best<")), board
    best = next(row for row in board.split("<tr>") if ">best<" in row)
    assert "+0.0000" not in best, "the best has no distance from itself"
    assert not re.search(r"(?<![\d,.])1 (images|times|folds|groups|experiments|wrong answers)\b", said)
    assert not re.search(r"\"value\": ?(NaN|null)", html), "an epoch without a look has no point in the charts"
    assert [errors.counted(count, "image") for count in (0, 1, 1200)] == ["0 images", "1 image", "1,200 images"]


def test_every_link_leads_somewhere(home: Path, html: str) -> None:
    found = Links(html)
    inside = [link[1:] for link in found.links if link.startswith("#")]
    outside = [link for link in found.links if not link.startswith("#")]

    assert set(inside) <= found.ids
    assert len(outside) > 12, "images, files of folds, the finding's CSV, the submission"
    assert not [link for link in outside if not (home / "runs/shapes" / unquote(link)).is_file()]
    assert all(source.startswith("data:image/webp") for source in found.sources)


def test_whatever_the_data_say_is_text(html: str) -> None:
    assert NASTY not in html
    table = blocks.Table(NASTY, blocks.columns(NASTY), [blocks.texts(NASTY)])
    chart = blocks.Chart(NASTY, NASTY, charts.confusion(np.eye(2, dtype=int), [NASTY, "b"]))
    section = blocks.PageSection("s", NASTY, NASTY, [table, chart, blocks.Words(f"`{NASTY}`"), blocks.Points([NASTY])])

    assert NASTY not in page.render(NASTY, NASTY, [section], NASTY)


def test_a_study_that_left_rubbish_is_told(home: Path) -> None:
    with pytest.raises(FoldcraftError, match="damaged"):
        evidence.read_json(Path(CONFIGS[0]))


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_opens_without_complaint_and_without_network(home: Path, html: str, browser: Browser, theme: str) -> None:
    tab = browser.open(home / "runs/shapes/report.html", theme=theme)

    assert browser.said == []
    assert tab.locator("figure.chart").count() == tab.locator(".plot svg").count() > 8
    background = tab.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (sum(map(int, re.findall(r"\d+", background))) > 384) == (theme == "light")
    tab.context.close()


def test_the_button_turns_light_to_dark_and_charts_with_it(home: Path, browser: Browser) -> None:
    tab = browser.open(home / "runs/shapes/report.html")
    ink = "getComputedStyle(document.querySelector('.plot svg text')).fill"
    before = tab.evaluate(ink)
    tab.click("#theme")
    tab.wait_for_selector("html[data-drawn='2'][data-theme='dark']", state="attached")

    assert tab.evaluate(ink) != before
    tab.reload()
    assert tab.get_attribute("html", "data-theme") == "dark", "the choice is remembered"
    tab.context.close()


def test_tables_sort_and_filter(home: Path, browser: Browser) -> None:
    tab = browser.open(home / "runs/shapes/report.html")
    table = tab.locator(".table", has=tab.get_by_role("heading", name="Wrong answers, the worst first"))
    column = table.locator("tbody tr:not([hidden]) td:nth-child(1)")
    before = column.all_inner_texts()
    table.get_by_role("button").first.click()

    assert column.all_inner_texts() == sorted(before) != before
    assert table.locator("th").first.get_attribute("aria-sort") == "ascending"
    table.get_by_role("button").first.click()
    assert column.all_inner_texts() == sorted(before, reverse=True)
    table.get_by_role("searchbox").fill(before[0])
    assert column.all_inner_texts() == [before[0]]
    assert table.locator(".count").inner_text() == f"1 of {len(before)} rows"
    tab.context.close()


def test_numbers_sort_as_numbers(home: Path, browser: Browser) -> None:
    tab = browser.open(home / "runs/shapes/report.html")
    table = tab.locator(".table", has=tab.get_by_role("heading", name="Modules")).first
    tab.locator("#nets summary").first.click()
    table.get_by_role("button", name="parameters").click()
    counts = [int(text.replace(",", "")) for text in table.locator("tbody td:nth-child(4)").all_inner_texts()]

    assert counts == sorted(counts, reverse=True)
    assert counts[0] > 999 > counts[-1], "as text, 1,000 would come before 9"
    tab.context.close()


def test_gallery_filters_and_shows_what_the_net_looked_at(home: Path, browser: Browser) -> None:
    tab = browser.open(home / "runs/shapes/report.html")
    cards = tab.locator(".cards li:not([hidden])")
    label = cards.first.get_attribute("data-label")
    wanted = tab.locator(f".cards li[data-label='{label}']").count()
    tab.locator("select[data-key=label]").select_option(label)

    assert 0 < wanted == cards.count() < tab.locator(".cards li").count()
    assert tab.locator(".gallery .count").inner_text() == errors.counted(wanted, "image")
    heat = cards.first.locator(".heat")
    assert heat.evaluate("each => each.naturalWidth") >= 16
    tab.mouse.move(0, 0)
    tab.locator(".all-heat").check()
    tab.wait_for_function("each => getComputedStyle(each).opacity === '1'", arg=heat.element_handle())
    tab.locator(".all-heat").uncheck()
    tab.wait_for_function("each => getComputedStyle(each).opacity === '0'", arg=heat.element_handle())
    cards.first.locator("button").click()
    assert cards.first.locator("button").get_attribute("aria-pressed") == "true"
    tab.context.close()


def test_nothing_is_wider_than_a_phone(home: Path, browser: Browser) -> None:
    tab = browser.open(home / "runs/shapes/report.html", width=390)
    tab.evaluate("document.querySelectorAll('details').forEach(each => each.open = true)")

    assert tab.evaluate("document.documentElement.scrollWidth") == 390
    tab.context.close()


def test_long_names_are_cut_in_the_middle_and_stay_apart() -> None:
    names = ["short", "constructor", "x" * 40 + "a", "x" * 40 + "b", "y" * 9 + "1" + "z" * 9, "y" * 9 + "2" + "z" * 9]
    called = charts.shortened(names, 12)
    assert list(called.values()) == [
        "short", "constructor", "xxxxxx…xxxxa", "xxxxxx…xxxxb", "yyyyyyy… (1)", "yyyyyyy… (2)",
    ]  # fmt: skip
    assert list(charts.shortened(names[:2], 12).values()) == names[:2]
    trials = ["pool-0123abcd", "probe_of_a_net-4567cdef"]
    assert list(charts.shortened(trials, 14).values()) == ["pool", "probe_of_a_net"], "a digest says least"
    alike = ["probe_of_a_net-0123abcd", "probe_of_a_net-4567cdef"]
    assert list(charts.shortened(alike, 14).values()) == ["probe_o…23abcd", "probe_o…67cdef"]


@pytest.mark.parametrize("width", [390, 1100])
def test_no_label_of_a_chart_is_clipped(tmp_path: Path, browser: Browser, width: int) -> None:
    names = [f"incorrectly worn, female, between thirty and sixty years ({k})" for k in range(4)]
    shown = [{"name": name, "value": 0.8, "low": 0.7, "high": 0.9} for name in names]
    sure = [{"who": n, "sure": s, "right": s, "low": s, "high": s, "images": 9} for n in names for s in (0.5, 0.9)]
    beside = [charts.intervals(shown, "F1"), charts.matrix(np.eye(4), names, "same")]
    below = [charts.confusion(np.eye(4, dtype=int), names), charts.reliability(sure)]
    side, *others = blocks.Side([blocks.Chart("c", "", s) for s in beside]), *(blocks.Chart("c", "", s) for s in below)
    file = tmp_path / "long.html"
    file.write_text(page.render("t", "s", [blocks.PageSection("headline", "h", "", [side, *others])], "command"))
    tab = browser.open(file, width)
    clipped = """each => [...each.querySelectorAll("text")].filter(text => {
        const [own, all] = [text.getBoundingClientRect(), each.getBoundingClientRect()];
        return own.left < all.left - 1 || own.right > all.right + 1 || own.top < all.top - 1;
    }).map(text => text.textContent)"""
    drawn = tab.locator(".plot svg").all()
    assert [svg.evaluate(clipped) for svg in drawn] == [[]] * 4
    assert {title for svg in drawn for title in svg.locator("title").all_text_contents()} == set(names)
    if width == 1100:
        assert tab.evaluate("[...document.querySelectorAll('.plot')].every(p => p.scrollWidth <= p.clientWidth)")
    assert browser.said == []
    tab.context.close()


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_axe_finds_no_serious_fault(home: Path, browser: Browser, theme: str) -> None:
    axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="axe-playwright-python is not installed")
    tab = browser.open(home / "runs/shapes/report.html", theme=theme)
    tab.evaluate("document.querySelectorAll('details').forEach(each => each.open = true)")
    found = axe.Axe().run(tab).response["violations"]

    serious = [one for one in found if one["impact"] in ("serious", "critical")]
    assert not [(one["id"], [node["html"][:120] for node in one["nodes"]][:3]) for one in serious]
    tab.context.close()


class Mute(Callback):
    pass


def big_evidence(rows: int = 20_000, classes: int = 50) -> evidence.Evidence:
    """Two experiments on many images, of which no net was trained; only what would take hours is drawn at random."""
    rng = np.random.default_rng(0)
    names = np.array([f"class {k:02d}" for k in range(classes)])
    targets = np.arange(rows) % classes
    folder = Path("input/big")
    (folder / "images").mkdir(parents=True)
    for k in range(classes):
        Image.fromarray(rng.integers(0, 256, (200, 200, 3), dtype=np.uint8)).save(folder / f"images/{k}.jpg")
    frame = pd.DataFrame({"id": [f"{row:05d}" for row in range(rows)], "label": names[targets], "file": targets})
    frame.to_csv(folder / "train.csv", index=False)
    frame[:100][["id", "file"]].to_csv(folder / "test.csv", index=False)
    frame[:100][["id", "label"]].to_csv(folder / "sample_submission.csv", index=False)
    text = CONFIG.replace("name: shapes", "name: big, image: 'images/{file}.jpg', test_image: 'images/{file}.jpg'")
    members = []
    for name in ("one", "two"):
        Path(f"{name}.yaml").write_text(text)
        settings = config_file.load(Path(f"{name}.yaml"), [])
        data = read(settings)
        split = splitting.make(data, settings.folds)
        folds.write(split, settings.folds_file)
        member = FinishedExperiment(Experiment(settings, data, split))
        members.append(member)
        model, blueprint = backbones.build(BackboneConfig(name="test_resnet", weights="none"), classes, 16)
        for fold in range(3):
            checkpoint.save_model(member.folder(fold).model, model.state_dict(), blueprint, {})
            epochs = [f"{epoch},0.001,1.0,50,1.0,0.5,{epoch}" for epoch in range(1, 31)]
            member.folder(fold).history.write_text(
                "\n".join(["epoch,lr,loss,images_per_second,valid_loss,score,seconds", *epochs])
            )
            files.write_atomic(member.folder(fold).manifest, json.dumps({"score": 0.5, "epochs": 30, "seconds": 100}))
            files.write_atomic(member.folder(fold).config, settings.to_yaml())
    truth = Labels(targets, split.fold, data.units, data.metric, data.space)
    answers = [draw_answers(rng, targets, classes) for _ in members]
    for member, said in zip(members, answers, strict=True):
        for fold in range(3):
            rows = split.fold == fold
            given = Predictions(
                data.train_ids[rows], ("identity",), said[None, rows], member.experiment.origin(fold, "")
            )
            store.write(member.folder(fold).oof, given)

    def candidate(name: str, predicted: np.ndarray, given: int) -> BlendCandidate:
        pool = LogPool(tuple(range(given)), (1.0,) * given, (1 / given,) * given, given, data.space)
        plan = BlendPlan(((1.0,),) * given, pool, Argmax())
        return BlendCandidate(name, predicted, nested.score_of(predicted, truth), plan, 0.5)

    alone = [candidate(member.name, one, 1) for member, one in zip(members, answers, strict=True)]
    mean = candidate("mean", np.log(np.exp(answers).mean(0)), 2)
    selection = BlendSelection(mean, [mean], alone, [(0.0, 0.0)] * 2, ["mean is used"], mean.nested)
    combined = Combined(np.arange(len(data.train_ids)), truth, [("identity",)] * 2, selection, mean.nested[:100])
    return evidence.Evidence(members, combined, [one[None] for one in answers], Path("submissions"), Path("big.html"))


def draw_answers(rng: np.random.Generator, targets: np.ndarray, classes: int) -> np.ndarray:
    logits = rng.normal(0, 1.5, (len(targets), classes))
    logits[np.arange(len(targets)), targets] += 4
    return logits - np.log(np.exp(logits).sum(1, keepdims=True))


def test_a_correlation_that_does_not_exist_is_an_empty_cell(workplace: Path, browser: Browser) -> None:
    values = np.array([[1.0, 0.25, np.nan], [0.25, 1.0, np.nan], [np.nan] * 3])
    chart = blocks.Chart("c", "", charts.matrix(values, ["a", "b", "flawless"], "correlation"))
    Path("one.html").write_text(page.render("one", "", [blocks.PageSection("s", "s", "", [chart])], ""))
    tab = browser.open(workplace / "one.html")

    said = tab.locator(".plot svg text").all_text_contents()
    assert [word for word in said if re.match(r"[\d.]+$|null|NaN", word)] == ["1.00", "0.25", "0.25", "1.00"]
    tab.context.close()


def test_page_for_many_images_stays_small(workplace: Path, browser: Browser, monkeypatch: pytest.MonkeyPatch) -> None:
    def noise(seen: evidence.Evidence, cases: list, callback: Callback) -> tuple[list[np.ndarray], str]:
        return [np.random.default_rng(k).random((7, 7), dtype=np.float32) for k in range(len(cases))], ""

    monkeypatch.setattr(gallery, "heat_maps", noise)  # Grad-CAM would decode all images first
    seen = big_evidence()
    text = page.render("big", "", page.sections(seen, Mute()), "")
    Path("big.html").write_text(text)

    assert len(seen.cases) > 2000
    assert text.count('class="heat"') >= 48
    assert len(text.encode()) < 30e6
    start = time.perf_counter()
    tab = browser.open(workplace / "big.html")
    drawn = time.perf_counter() - start
    loaded = tab.evaluate("performance.timing.loadEventEnd - performance.timing.navigationStart") / 1000
    print(f"\n{len(text) / 1e6:.1f} MB, opens in {loaded:.1f} s, all charts are drawn after {drawn:.1f} s")
    assert browser.said == []
    assert tab.locator("#confusions .plot svg text", has_text="class 49").count() == 2, "all classes are named"
    tab.set_viewport_size({"width": 390, "height": 844})
    assert tab.evaluate("document.documentElement.scrollWidth") == 390
    tab.context.close()


def as_it_is(maps: torch.Tensor) -> torch.Tensor:
    return maps


def channels_last(maps: torch.Tensor) -> torch.Tensor:
    return maps.permute(0, 2, 3, 1)


def tokens(maps: torch.Tensor) -> torch.Tensor:
    """Behind a class token."""
    return nn.functional.pad(maps.flatten(2).transpose(1, 2), (0, 0, 1, 0))


class Spot(nn.Module):
    """Says class 1 by how bright the image is: its last map is the image, made coarser, in one form or another."""

    feature_info: ClassVar = [{"module": "last"}]
    global_pool = "avg"

    def __init__(self, form: Callable[[torch.Tensor], torch.Tensor]) -> None:
        super().__init__()
        self.stem, self.last, self.form = nn.AvgPool2d(4), nn.Identity(), form
        self.head = nn.Linear(3, 2)
        nn.init.constant_(self.head.weight, 1.0)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        last = self.last(self.form(self.stem(images)))
        return self.head(last.mean((2, 3)) if self.form is as_it_is else last.flatten(1, -2).mean(1))


@pytest.mark.parametrize("form", [as_it_is, channels_last, tokens])
def test_heat_is_where_the_answer_comes_from(form: Callable) -> None:
    images = torch.zeros(2, 3, 32, 32)
    images[0, :, 4:8, 20:24], images[1, :, 24:28, 8:12] = 1, 1

    heat = gradcam.grad_cam(Spot(form), images, [1, 1])

    assert heat.shape == (2, 32, 32)
    assert (heat.min(), heat.max()) == pytest.approx((0, 1), abs=1e-5)
    for one, place in zip(heat, [(6, 22), (26, 10)], strict=True):
        hottest = np.unravel_index(one.argmax(), one.shape)
        assert np.abs(np.subtract(hottest, place)).max() <= 2


SWIN = {"img_size": 64, "depths": (1, 1), "num_heads": (2, 4), "embed_dim": 16, "window_size": 4}


@pytest.mark.parametrize(
    ("name", "args"),
    [
        ("test_resnet", {}),
        ("test_convnext", {}),
        ("test_vit", {"img_size": 64}),
        ("swin_tiny_patch4_window7_224", SWIN),
    ],
)
def test_heat_of_every_kind_of_net(name: str, args: dict) -> None:
    torch.manual_seed(0)
    model = timm.create_model(name, num_classes=3, **args).eval()
    heat = gradcam.grad_cam(model, torch.randn(1, 3, 64, 64), [2])

    assert heat.shape == (1, 64, 64)
    assert heat.max() == pytest.approx(1, abs=1e-5)
    assert heat.std() > 0.05, "a map that is the same everywhere says nothing"


def test_heat_of_a_net_without_map() -> None:
    with pytest.raises(FoldcraftError, match="no map"):
        gradcam.grad_cam(nn.Sequential(nn.Flatten(), nn.Linear(48, 2)), torch.zeros(1, 3, 4, 4), [0])


def test_doubtful_labels_are_those_that_were_changed() -> None:
    rng = np.random.default_rng(0)
    right = rng.integers(4, size=400)
    given = right.copy()
    changed = rng.choice(400, 20, replace=False)
    given[changed] = (given[changed] + 1) % 4
    logits = rng.normal(0, 0.3, (400, 4))
    logits[np.arange(400), right] += 4
    predicted = logits - np.log(np.exp(logits).sum(1, keepdims=True))
    reached, taken_for = confident_classes(np.exp(predicted), given)
    found = np.flatnonzero(reached & (taken_for != given))

    assert set(found) <= set(changed)
    assert len(found) >= 8
    cases = mistakes.find_mistakes(predicted.argmax(1), predicted, given, [predicted, -predicted])
    assert {case.row for case in cases} == set(changed)
    assert {case.row for case in cases if case.doubtful} == set(found)
    assert [case.own for case in cases] == sorted(case.own for case in cases)
    assert {case.agree for case in cases} == {1}


def test_reliability_of_known_probabilities() -> None:
    sure = np.repeat([0.6, 0.9], 100)
    truth = np.concatenate([np.arange(100) >= 60, np.arange(100) >= 70]).astype(int)
    bins = calibration.reliability(np.log(np.stack([sure, 1 - sure], axis=1)), truth, bins=2)

    assert [(one.rows, round(one.sure, 6), one.right) for one in bins] == [(100, 0.6, 0.6), (100, 0.9, 0.7)]
    assert all(one.low < one.right < one.high for one in bins)
    assert calibration.calibration_error(bins) == pytest.approx(0.1)


def test_measures_of_each_class_are_those_of_scikit_learn() -> None:
    rng = np.random.default_rng(1)
    truth = rng.integers(3, size=300)
    probabilities = rng.dirichlet([1, 1, 1], 300) + 0.5 * np.eye(3)[truth]
    found = significance.each_class(truth, probabilities, ["a", "b", "c"], np.arange(300).astype(str))

    expected = precision_recall_fscore_support(truth, probabilities.argmax(1))
    assert np.allclose([[one.precision[0], one.recall[0], one.f1[0], one.rows] for one in found], np.array(expected).T)
    assert all(low < value < high for one in found for value, low, high in (one.precision, one.recall, one.f1))


def test_a_class_without_a_mistake_is_not_known_to_be_without_any() -> None:
    truth = np.repeat([0, 1], [400, 20])
    few, many = significance.each_class(truth, np.eye(2)[truth], ["many", "few"], np.arange(420))[::-1]
    for one in (few, many):
        assert one.precision[0] == one.recall[0] == one.f1[0] == one.f1[2] == 1
    assert 0.8 < few.recall[1] < 0.95, "the rule of three says .86"
    assert 0.985 < many.recall[1] < 0.998


def test_correlation_of_errors() -> None:
    rng = np.random.default_rng(2)
    truth = rng.integers(3, size=200)
    predicted = [rng.dirichlet([1, 1, 1], 200), rng.dirichlet([1, 1, 1], 200), np.eye(3)[truth]]
    found = significance.error_correlation(ClassSpace(("a", "b", "c")), truth, predicted)

    wrong = [each.argmax(1) != truth for each in predicted[:2]]
    assert np.allclose(found[:2, :2], np.corrcoef(wrong))
    assert np.isnan(found[2]).all(), "one that never errs"
