"""The dashboard in a real browser: a click, a record that grows, text that stays text, the dark."""

import shlex
import zipfile
from pathlib import Path

import pytest
import yaml
from browser import CHROMIUM, FIGURE, IDLE, PATIENCE_S, browser, served
from command_line import call
from frames import STUDY, events_of, search, write_run

from coatnet_search.record.fold import encode

pytestmark = [
    pytest.mark.full,
    pytest.mark.skipif(CHROMIUM is None, reason="no chromium on the PATH: scripts/setup-browser"),
]
BAD = "<img src=x onerror=alert(1)><script>alert(1)</script>"
WAIT_MS = 1000 * PATIENCE_S
LAYOUTS = "[...new Set(document.querySelector('.js-plotly-plot').data.map(one => one.legendgroup).filter(Boolean))]"


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    write_run(folder / "own", search(30), {**STUDY, "question": f"{BAD} which?"})
    return folder


@pytest.fixture(scope="module")
def address(root):
    with served(root) as found:
        yield found


@pytest.fixture(scope="module")
def chromium():
    with browser() as window:
        yield window


def opened(chromium, address, path, drawn=FIGURE, **options):
    """A page that is drawn; what it asked of other machines and what it complained about lie beside it."""
    page = chromium.new_context(viewport={"width": 1300, "height": 1400}, **options).new_page()
    page.outside, page.dialogs = [], []
    page.on("request", lambda r: page.outside.append(r.url) if r.url.startswith("http") and address not in r.url else 0)
    page.on("dialog", lambda dialog: (page.dialogs.append(dialog.message), dialog.dismiss()))
    page.goto(address + path, timeout=1000 * PATIENCE_S)
    page.wait_for_selector(drawn, timeout=WAIT_MS)
    page.wait_for_selector(IDLE, timeout=WAIT_MS)
    return page


@pytest.mark.timeout(600)
def test_a_click_opens_the_architecture_and_stays_picked_while_the_record_grows(chromium, address, root):
    page = opened(chromium, address, "/search?run=own&view=front")

    box = page.locator(".js-plotly-plot .scatterlayer .points path").nth(5).bounding_box()
    page.mouse.click(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    page.wait_for_url("**trial=*", timeout=WAIT_MS)
    page.get_by_text("download YAML").first.wait_for(timeout=WAIT_MS)
    picked = page.url
    more = search(34).to_dict("records")[30:]
    with (root / "own" / "trials.jsonl").open("ab") as file:
        file.write(b"".join(encode(event) for row in more for event in events_of({**row, "state": "done"})))
    page.get_by_text("Of 2").or_(page.get_by_text("Of 3")).first.wait_for(timeout=WAIT_MS)
    page.wait_for_timeout(5000)

    assert page.url == picked
    assert page.get_by_text("download YAML").count() >= 1
    assert page.outside == [] and page.dialogs == []
    assert page.locator("img[src=x]").count() == 0
    assert BAD in page.locator("h2").first.inner_text()


@pytest.mark.timeout(600)
def test_a_filter_leaves_the_trials_that_pass_and_is_in_the_address(chromium, address):
    page = opened(chromium, address, "/search?run=own&view=front")
    before = page.evaluate(LAYOUTS)

    page.get_by_test_id("stSidebar").get_by_test_id("stMultiSelect").first.locator("input").click()
    page.get_by_role("option", name="C-C-T-T").click()
    page.wait_for_url("**layouts=C-C-T-T*", timeout=WAIT_MS)
    page.wait_for_function(f"({LAYOUTS}).length == 1", timeout=WAIT_MS)

    assert len(before) == 4 and page.evaluate(LAYOUTS) == ["C-C-T-T"]
    again = opened(chromium, address, page.url.removeprefix(address))
    assert again.evaluate(LAYOUTS) == ["C-C-T-T"]


@pytest.mark.timeout(600)
def test_what_the_page_chooses_is_what_its_command_chooses(chromium, address, root, capsys):
    page = opened(chromium, address, "/choose?run=own&top=2", drawn="[data-testid=stCode]")
    page.get_by_test_id("stNumberInput").first.get_by_role("button").nth(1).click()
    page.get_by_test_id("stCode").get_by_text("--top 3").first.wait_for(timeout=WAIT_MS)
    words = shlex.split(page.get_by_test_id("stCode").first.inner_text())
    done = call(capsys, *words[1:], "--json")

    reasons = [item.inner_text().replace("≤", "<=") for item in page.locator("[data-testid=stMarkdown] ol li").all()]
    assert len(done.json) == 3 and [row["reason"] for row in done.json] == reasons
    with page.expect_download() as download:
        page.get_by_text("download 3 YAML files").click()
    with zipfile.ZipFile(download.value.path()) as archive:
        files = {name: yaml.safe_load(archive.read(name))["arch"] for name in archive.namelist()}
    written = [Path(row["path"]) for row in done.json]
    assert files == {file.name: yaml.safe_load(file.read_text())["arch"] for file in written}


@pytest.mark.timeout(600)
def test_the_pages_follow_the_browser_into_the_dark(chromium, address):
    grounds = []

    for scheme in ("light", "dark"):
        page = opened(chromium, address, "/search?run=own", color_scheme=scheme)
        grounds.append(page.evaluate("getComputedStyle(document.querySelector('[data-testid=stApp]')).backgroundColor"))

    bright = [sum(int(part) for part in ground[4:-1].split(",")[:3]) for ground in grounds]
    assert bright[0] > 600 and bright[1] < 150
