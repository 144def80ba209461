"""The report in a real browser: what it draws, that it fetches and complains of nothing, and that it fits a phone."""

import os
import re
import shutil
import time
from datetime import UTC, datetime

import pytest

from distcls.tracking.report import render
from tests.engine.launching import HANGS_S, PLAIN, launch
from tests.tracking.example_runs import add_predictions, make_run

CHROMIUM = shutil.which("chromium")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="needs chromium: apt-get install chromium"),
]
QUICK = {"epochs": 3, "steps_per_epoch": 234, "log_every": 10}
NAMES = ["boot", "bag", "coat", "dress", "shirt"]
TROUBLE = "NonFiniteLoss: the loss is not finite at step 250"


@pytest.fixture(scope="module")
def browser():
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"], timeout=1000 * HANGS_S)
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def pages(tmp_path_factory):
    """Files of the reports that are looked at."""
    folder = tmp_path_factory.mktemp("pages")
    attempts = ((0, 250, "preempted"), (234, 10**9, "finished"))
    finished = add_predictions(make_run(folder / "finished", **QUICK, attempts=attempts, final=0.92), NAMES, 100)
    many = [f"class number {number}" for number in range(1000)]
    runs = {
        "finished": [finished],
        "running": [make_run(folder / "running", **QUICK, attempts=((0, 400, "running"),))],
        "crashed": [make_run(folder / "crashed", **QUICK, nan_at=250, attempts=((0, 250, "failed"),), message=TROUBLE)],
        "preempted": [make_run(folder / "preempted", **QUICK, attempts=((0, 400, "preempted"),), message="SIGUSR2")],
        "thousand": [add_predictions(make_run(folder / "thousand", **QUICK), many, 50, side=120)],
        "three": [finished, add_predictions(make_run(folder / "lr_0.1", **QUICK, lr=0.1), NAMES, 100, seed=1)],
    }
    runs["three"].append(make_run(folder / "lr_1.0", **QUICK, lr=1.0))
    runs["zero"] = [make_run(folder / "zero", **QUICK)]
    metrics = folder / "zero" / "metrics.jsonl"
    metrics.write_text(re.sub(r'("step": [4-6]\d\d,.*"train/loss": )[^,]*', r"\g<1>0.0", metrics.read_text()))
    for name, compared in runs.items():
        (folder / f"{name}.html").write_text(render(compared))
    return folder


@pytest.fixture
def opened(browser, pages):
    """Opens a page; at the end of the test it must have fetched and complained of nothing."""
    complaints, contexts = [], []

    def open_page(name, width=1440, scheme="light", file=None):
        context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme)
        context.set_default_timeout(1000 * HANGS_S)
        contexts.append(context)
        page = context.new_page()
        page.on("console", lambda message: complaints.append(message.text))
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("request", lambda request: complaints.append(request.url) if _outside(request.url) else None)
        page.goto((file or pages / f"{name}.html").as_uri())
        if folder := os.environ.get("DISTCLS_SCREENSHOTS"):  # to look at them
            page.wait_for_timeout(300)
            page.screenshot(path=f"{folder}/{name}_{width}_{scheme}.png", full_page=True)
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert complaints == []


def _outside(url):
    return not url.startswith(("file:", "data:"))


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("name", ["finished", "running", "crashed", "preempted", "thousand", "three"])
def test_a_page_fits_a_phone_and_a_laptop(name, scheme, opened):
    for width in (390, 1440):
        page = opened(name, width, scheme)
        assert page.evaluate("document.documentElement.scrollWidth") == width
        empty = page.evaluate("figures.filter((f) => !f.querySelector('svg path[d]')).map((f) => f.textContent)")
        assert empty == []
        # no picture is broken, and no text as dark as what it stands on
        assert page.evaluate("[...document.images].every((image) => image.complete && image.naturalWidth)")
        ink, ground = page.evaluate("['color', 'backgroundColor'].map((name) => getComputedStyle(document.body)[name])")
        assert (ink, ground) == (
            ("rgb(23, 26, 31)", "rgb(246, 247, 249)")
            if scheme == "light"
            else ("rgb(233, 236, 240)", "rgb(16, 19, 23)")
        )


def test_the_switches(opened):
    page = opened("finished")
    loss = page.locator("figure.panel").first
    by_images = loss.locator("svg").inner_html()
    assert "500k" in by_images
    page.get_by_role("button", name="Time").click()
    assert "min" in loss.locator("svg").inner_html() or "m</text>" in loss.locator("svg").inner_html()
    page.get_by_role("button", name="Images", exact=True).click()
    assert loss.locator("svg").inner_html() == by_images
    assert loss.locator(".restart").count() == 1
    page.get_by_role("button", name="log").click()
    assert loss.locator("svg").inner_html() != by_images
    page.locator("#smooth").fill("0.9")
    page.get_by_role("button", name="light or dark").click()
    assert page.evaluate("getComputedStyle(document.body).color") == "rgb(233, 236, 240)"
    page.reload()  # as a running run's page does
    assert page.evaluate("getComputedStyle(document.body).color") == "rgb(233, 236, 240)"
    assert page.locator("#smooth").input_value() == "0.9"


def test_pointing_at_a_curve_tells_its_values(opened):
    page = opened("finished")
    page.locator("figure.panel svg").first.hover()
    tip = page.locator(".tip").inner_text()
    assert "images" in tip
    assert "train" in tip
    assert "val" in tip


def test_where_the_time_goes_adds_up(opened):
    page = opened("finished")
    stack = page.locator("figure.panel.whole")
    assert stack.locator("path.area").count() == 6
    shares = [float(text.removesuffix(" %")) for text in stack.locator(".key b").all_inner_texts()]
    assert sum(shares) == pytest.approx(100, abs=0.5)
    assert "nothing to change first" in page.locator("#time + .table").inner_text()


def test_classes_are_searched_and_sorted(opened):
    page = opened("thousand")
    rows = page.locator("#class-table tbody tr")
    assert rows.count() == 300
    page.get_by_role("button", name="show all", exact=True).click()
    assert rows.count() == 1000

    def column():
        return [float(text.split()[0]) for text in page.locator("#class-table td:nth-child(2)").all_inner_texts()]

    assert column() == sorted(column())
    page.get_by_role("button", name="accuracy").click()
    assert column() == sorted(column(), reverse=True)
    page.get_by_role("button", name="class", exact=True).click()
    assert page.locator("#class-table td").first.inner_text() == "class number 0"
    page.locator("#search").fill("NUMBER 77")
    assert rows.count() == 11  # 77, 770 to 779
    assert page.locator("#hits").inner_text() == "11 found"


def test_the_confusion_matrix_of_a_thousand_classes(opened):
    page = opened("thousand")
    caption, canvas = page.locator(".map .caption"), page.locator("#matrix")
    first = page.locator(".pairs button").first
    label, best = first.locator("span").first.inner_text().split(" taken for ")
    times = first.locator(".muted").inner_text()
    first.click()
    assert f"{label} and the classes that it is most confused with" in caption.inner_text()
    # the second column of the first row is what it is most confused with, in one direction or the other
    ink = page.evaluate(
        "() => { const c = document.getElementById('matrix'); const d = c.getContext('2d').getImageData(0, 0, c.width, c.height).data;"
        " const colours = new Set(); for (let i = 0; i < d.length; i += 4) colours.add(d.slice(i, i + 4).join()); return colours.size; }"
    )
    assert ink > 50  # cells and names of both colours, not an empty canvas
    place = page.evaluate(
        "([label, best]) => { const n = data.predictions.classes.name; return [n.indexOf(label), n.indexOf(best)]; }",
        [label, best],
    )
    assert all(number >= 0 for number in place)
    page.get_by_role("button", name="All classes").click()
    assert "Rows are labels" in caption.inner_text()
    page.locator("#focus").fill(best)
    assert f"{best} and the classes" in caption.inner_text()
    page.get_by_role("button", name="zoom in").click()
    page.get_by_role("button", name="zoom out").click()
    box = canvas.bounding_box()
    canvas.hover(position={"x": box["width"] * 0.35, "y": 12})
    assert " of 50" in caption.inner_text()
    assert times.endswith(" of 50")


def test_a_worst_image_from_close_up(opened):
    page = opened("finished", 390)
    assert page.locator(".shot:visible").count() == 16
    page.get_by_role("button", name="Show all 64").click()
    assert page.locator(".shot:visible").count() == 64
    page.locator(".shot").nth(20).click()
    dialog = page.locator("dialog")
    assert dialog.is_visible()
    assert "sample 357" in dialog.inner_text()  # the 21st image's place in the data set
    assert dialog.locator("li").count() == 3
    dialog.get_by_role("button", name="close").click()
    assert not dialog.is_visible()


def test_runs_are_hidden_and_shown(opened):
    page = opened("three")
    loss = page.locator("figure.panel").first
    before = loss.locator("path[style]").count()
    page.get_by_role("button", name="lr_0.1").click()
    assert 0 < loss.locator("path[style]").count() < before
    assert page.get_by_role("cell", name="optimizer.lr").count() == 1
    apart = [
        float(text)
        for text in page.locator("h2:has-text('Classes that differ') + .table td:nth-child(4)").all_inner_texts()
    ]
    assert apart == sorted(apart, reverse=True)
    assert len(apart) == len(NAMES)


def test_the_top_says_how_a_run_stands(opened, tmp_path):
    assert TROUBLE in opened("crashed").locator(".notice.bad").inner_text()
    text = "Preempted at step 400: SIGUSR2. Nothing is lost. The same command goes on from its last checkpoint."
    assert opened("preempted").locator(".notice").inner_text() == text
    assert opened("finished").locator(".notice").count() == 0
    # the example's lines are of 2023
    assert "Says running, but is silent since step 400" in opened("running").locator(".notice").inner_text()
    run = make_run(tmp_path / "now", **QUICK, attempts=((0, 400, "running"),), start=time.time() - 220)
    days = {f"{datetime.now(UTC):%Y-%m-%d}"}
    (tmp_path / "now.html").write_text(render([run], reload_s=60))
    days.add(f"{datetime.now(UTC):%Y-%m-%d}")
    page = opened("now", file=tmp_path / "now.html")
    text = page.locator(".notice.busy").inner_text()
    assert text.startswith("Running: epoch 1.709 of 3, about ")
    assert f"distcls report {run}" in text
    assert any(day in page.locator("footer").inner_text() for day in days)
    assert page.locator("meta[http-equiv=refresh]").get_attribute("content") == "60"


def test_the_page_that_a_real_run_draws(opened, tiny_recipe, tmp_path):
    code, output = launch(PLAIN, tiny_recipe, "train.epochs=1")
    assert code == 0, output
    page = opened("real", 390, file=tmp_path / "run" / "report.html")
    assert page.locator(".shot").count() == 64
    assert page.locator("#class-table tbody tr").count() == 5
    assert page.locator("figure.panel svg path[style]").count() > 5
    assert page.locator(".status").first.inner_text() == "finished"
    assert page.evaluate("[...document.images].every((image) => image.complete && image.naturalWidth === 24)")


def test_a_loss_of_zero_has_no_place_on_a_logarithmic_axis(opened):
    page = opened("zero")
    page.click("figure.panel button")  # it ended nobody's browser: ticks went down to 10 to the minus infinity
    panel = page.locator("figure.panel").first
    assert panel.locator("svg text").count() > 4
    assert not any(
        "NaN" in path or "Infinity" in path
        for path in panel.locator("path").evaluate_all("all => all.map(p => p.getAttribute('d'))")
    )


def test_a_page_made_dark_is_printed_light_and_whole(opened):
    page = opened("finished", width=794)  # A4
    page.click(".theme")
    page.emulate_media(media="print")
    assert page.evaluate("getComputedStyle(document.documentElement).colorScheme") == "light"
    assert page.evaluate("getComputedStyle(document.querySelector('.table')).overflow") == "visible"
    assert page.evaluate("document.documentElement.scrollWidth") <= 794
