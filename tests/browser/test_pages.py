"""Every page as it stands: nothing loud on the console, no other host, no sideways scrolling, readable in light and dark."""

import io
import os
import time
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, Literal

import pytest
from PIL import Image
from playwright.sync_api import Browser, Page, Route, expect

from dashboard import words
from dashboard.memory_bar import read_bar
from farm.answers.jobs import ProgressView
from farm.feed import CardChanged, LiveCard
from farm.model import JobStatus, Node, StageKind
from farm.vitals import Vitals
from tests.browser.conftest import PHONE, Furnished, Visit, until, visiting
from tests.browser.farm_in_use import RTX_2060, RTX_3060
from tests.integration.dashboard_server import RunningDashboard
from tests.waiting import wait_until

pytestmark = pytest.mark.browser

PAGES = (
    "farm",
    "submit",
    "again",
    "benchmarks",
    "settings",
    "jobs",
    "no-match",
    "cards",
    "finished",
    "draft",
    "failed",
    "cancelled",
    "running",
    "queued",
    "stuck",
)

# Contrast after WCAG 2 of every text on the page against what lies behind it, alpha and opacity counted in.
_CONTRAST = """() => {
  const parse = (text) => (text.match(/[\\d.]+/g) || []).map(Number);
  const over = (top, under) => { const a = top[3] ?? 1; return [0, 1, 2].map((i) => top[i] * a + under[i] * (1 - a)); };
  const light = (rgb) => {
    const [r, g, b] = rgb.map((v) => { v /= 255; return v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4; });
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const behind = (element) => {
    const chain = [];
    for (let e = element; e; e = e.parentElement) chain.unshift(parse(getComputedStyle(e).backgroundColor));
    return chain.reduce((under, top) => over(top, under), [255, 255, 255]);
  };
  const bad = [];
  for (const element of document.querySelectorAll("body *")) {
    const own = [...element.childNodes].some((n) => n.nodeType === 3 && n.nodeValue.trim());
    if (!own || element.closest(".unseen, noscript, script, video") || !element.checkVisibility()) continue;
    const ground = behind(element);
    let shown = over(parse(getComputedStyle(element).color), ground);
    let opacity = 1;
    for (let e = element; e; e = e.parentElement) if (!e.getAnimations().length) opacity *= Number(getComputedStyle(e).opacity);
    shown = over([...shown, opacity], ground);
    const [a, b] = [light(shown), light(ground)].sort((x, y) => y - x);
    const ratio = (a + 0.05) / (b + 0.05);
    const needed = element.matches("[aria-hidden=true]") ? 3 : 4.5; // a star is a picture, not a text
    if (ratio < needed) bad.push(`${ratio.toFixed(2)} ${element.className} ${element.textContent.trim().slice(0, 40)}`);
  }
  return bad;
}"""


def path_of(name: str, furnished: Furnished) -> str:
    fixed = {
        "farm": "/",
        "submit": "/submit",
        "again": f"/submit?again={furnished.jobs['finished'].id}",
        "benchmarks": "/benchmarks",
        "settings": "/settings",
        "jobs": "/jobs",
        "no-match": "/jobs?q=zebra",
        "cards": "/cards",
    }
    return fixed.get(name) or f"/jobs/{furnished.jobs[name].id}"


GROUNDS = {"light": "rgb(246, 245, 242)", "dark": "rgb(20, 21, 23)"}


def in_scheme(page: Page, scheme: Literal["light", "dark"]) -> None:
    """Shows the page in these colours, and looks whether it does."""
    page.emulate_media(color_scheme=scheme)
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == GROUNDS[scheme], scheme


def test_pages_are_quiet_and_readable(shown: Furnished, browser: Browser) -> None:
    """No console error, no request elsewhere (checked when the visit ends), contrast of at least 4.5 everywhere, in dark and light."""
    with visiting(browser, shown.farm.base_url, color_scheme="light") as visit:
        visit.sign_in(shown.farm)
        for name in PAGES:
            page = visit.go(path_of(name, shown))
            expect(page.locator("#updated")).to_contain_text("Updated")
            in_scheme(page, "dark")
            assert page.evaluate(_CONTRAST) == [], f"{name} in the dark"
            in_scheme(
                page, "light"
            )  # last, so that the next page is opened in it; `test_accessible` opens them in the dark
            assert page.evaluate(_CONTRAST) == [], name


def test_no_page_scrolls_sideways_on_a_phone(shown: Furnished, browser: Browser) -> None:
    with visiting(browser, shown.farm.base_url, viewport=PHONE, has_touch=True) as visit:
        visit.go("/signin")
        assert visit.page.evaluate("document.documentElement.scrollWidth") <= PHONE["width"]
        visit.sign_in(shown.farm)
        for name in PAGES:
            page = visit.go(path_of(name, shown))
            if name == "submit":
                page.get_by_text("Advanced settings").click()
            if name == "cards":
                page.locator(f"#history-{RTX_3060.id} summary").click()
                expect(page.locator(".history .uplot")).to_be_visible()
            assert page.evaluate("document.documentElement.scrollWidth") <= PHONE["width"], name


def test_a_page_that_is_not_there_looks_like_the_others(shown: Furnished, browser: Browser) -> None:
    with visiting(browser, shown.farm.base_url) as visit:
        visit.sign_in(shown.farm)
        visit.expected.extend(["/nowhere", "/jobs/"])
        for path in ("/nowhere", "/jobs/01J0000000000000000000000"):
            page = visit.go(path)
            expect(page.get_by_role("heading", level=1)).to_have_text("Not found")
            expect(page.get_by_role("link", name="To the farm")).to_be_visible()


@pytest.mark.parametrize(("word", "kind"), [("GIF", "gif"), ("WebP", "webp")])
def test_a_clip_is_downloaded_as_gif_or_webp(
    shown: Furnished, browser: Browser, word: str, kind: str
) -> None:
    with visiting(browser, shown.farm.base_url) as visit:
        visit.sign_in(shown.farm)
        page = visit.go(path_of("finished", shown))
        with page.expect_download() as download:
            page.get_by_role("link", name=word, exact=True).click()
        assert download.value.suggested_filename.endswith(f".{kind}")
        with Image.open(download.value.path()) as image:
            assert (image.format, image.size, image.n_frames) == (kind.upper(), (512, 512), 16)


def test_each_status_has_a_dot_and_a_word(shown: Furnished, browser: Browser) -> None:
    said = {
        "finished": "Finished",
        "failed": "Failed",
        "cancelled": "Cancelled",
        "running": "Rendering",
        "queued": "Queued",
        "stuck": "No card fits",
    }
    with visiting(browser, shown.farm.base_url) as visit:
        visit.sign_in(shown.farm)
        page = visit.go("/jobs")
        for name, word in said.items():
            status = page.locator(f"#job-{shown.jobs[name].id} .status")
            expect(status).to_have_text(word)
            assert status.locator(".dot").evaluate("(dot) => dot.getBoundingClientRect().width") > 5


def test_drafts_are_marked_wherever_they_are_shown(shown: Furnished, browser: Browser) -> None:
    draft = shown.jobs["draft"].id
    with visiting(browser, shown.farm.base_url) as visit:
        visit.sign_in(shown.farm)
        visit.go("/")
        expect(visit.page.locator(f"#clip-{draft} .frame")).to_contain_text("DRAFT")
        expect(visit.page.locator(f"#clip-{shown.jobs['retried'].id}")).not_to_contain_text("DRAFT")
        visit.go("/jobs")
        expect(visit.page.locator(f"#job-{draft} .thumb")).to_contain_text("DRAFT")
        visit.go(f"/jobs/{draft}")
        expect(visit.page.locator("#stage")).to_contain_text("No diffusion model made this.")
        expect(visit.page.get_by_role("link", name="Download draft")).to_be_visible()


def test_counters_and_filters_are_links_that_keep_each_other(shown: Furnished, browser: Browser) -> None:
    with visiting(browser, shown.farm.base_url) as visit:
        visit.sign_in(shown.farm)
        page = visit.go("/")
        page.locator(".counts a", has_text="queued").click()
        expect(page).to_have_url(f"{shown.farm.base_url}/jobs?status=queued")
        expect(page.locator(".job-row")).to_have_count(3)
        page.get_by_role("link", name="Failed").click()
        expect(page.locator(".job-row")).to_have_count(1)
        page.get_by_role("searchbox").fill("roofs")
        page.keyboard.press("Enter")
        expect(page.locator(".job-row")).to_have_count(1)
        page.get_by_role("link", name="Finished").click()
        expect(page.locator(".empty")).to_contain_text("There is no finished job with “roofs” in its prompt.")
        page.get_by_role("link", name="Show all jobs").click()
        expect(page.locator(".job-row")).to_have_count(13)


def test_an_empty_farm_says_how_to_begin(empty: RunningDashboard, browser: Browser) -> None:
    with visiting(browser, empty.base_url) as visit:
        visit.sign_in(empty)
        visit.go("/")
        expect(visit.page.locator("#going")).to_contain_text("Drop a picture into the form")
        expect(visit.page.locator("#cards")).to_contain_text("No PC has joined yet.")
        visit.go("/jobs")
        expect(visit.page.locator(".empty")).to_contain_text("No jobs yet.")
        visit.go("/cards")
        expect(visit.page.locator("#nodes")).to_contain_text("No PC has joined yet.")


def test_older_jobs_are_a_link_away(furnished: Furnished, browser: Browser) -> None:
    for number in range(30):
        furnished.use.queue("person", "draft", f"number {number}")
    with visiting(browser, furnished.farm.base_url) as visit:
        visit.sign_in(furnished.farm)
        page = visit.go("/jobs?model=animatic")
        expect(page.locator(".job-row")).to_have_count(30)
        page.get_by_role("link", name="Older").click()
        expect(page.locator(".job-row")).to_have_count(5)
        assert "model=animatic" in page.url


def test_adding_a_pc_gives_the_line_and_says_when_nobody_can_reach_the_head(
    shown: Furnished, browser: Browser
) -> None:
    with visiting(browser, shown.farm.base_url) as visit:
        visit.sign_in(shown.farm)
        page = visit.go("/cards")
        expect(page.locator("#add")).to_contain_text("farm up --host ADDRESS")
        page.get_by_role("button", name="Make a join code").click()
        expect(page.locator("#line-bare")).to_be_visible()
        words_of_line = page.locator("#line-bare").input_value().split(" ")
        assert words_of_line[:2] == ["farm", "join"]
        assert words_of_line[2] == "http://ADDRESS:8000"
        assert words_of_line[3] == "--token"
        found = shown.farm.registry.token(words_of_line[4])
        assert found is not None
        assert found.kind == "join"
        assert page.locator("#line").input_value().endswith(f"sh $f http://ADDRESS:8000 {words_of_line[4]}")
        assert "-Head 'http://ADDRESS:8000'" in page.locator("#line-windows").input_value()
        expect(page.locator("#join-until")).to_contain_text("Good for one PC, until")
        expect(page.locator("#join-waits")).to_have_text("Waiting for it to appear…")

        def late(route: Route) -> None:
            answer = route.fetch()
            route.fulfill(response=answer, json=answer.json() | {"expires_at": time.time() + 0.5})

        page.route("**/api/v1/tokens", late)
        page.get_by_role("button", name="Make a join code").click()
        expect(page.locator("#join-waits")).to_have_text(
            "The code has expired before a PC used it. Make another join code, and paste its line."
        )


def test_a_pc_that_joins_is_found_and_said_what_it_takes(furnished: Furnished, visit: Visit) -> None:
    """While the line of "Add a PC" waits, the new card shows up by itself: what it is, and what it takes of each tier."""
    page = visit.go("/cards")
    visit.mark()
    page.get_by_role("button", name="Make a join code").click()
    expect(page.locator("#join-waits")).to_have_text("Waiting for it to appear…")
    new = replace(
        RTX_2060, id="GPU-new", node_id="node-cellar", name="GTX 1650 Super", vram_gib=4.0, usable_gib=3.4
    )
    furnished.farm.registry.see_node(Node("node-cellar", "cellar", "192.168.1.44"), [new], time.time())
    furnished.scheduler.publish(
        CardChanged(LiveCard(RTX_3060.id, "node-desk", "desk", "RTX 3060", "idle")),
        CardChanged(LiveCard("GPU-new", "node-cellar", "cellar", "GTX 1650 Super", "idle")),
    )
    found = page.locator("#join-found li")
    expect(found).to_have_text(
        "Found GTX 1650 Super, 4 GB, on cellar: takes post and, streamed, preview and quality"
    )
    expect(page.locator("#join-waits")).to_have_text("It is in the farm.")
    expect(page.locator("#nodes")).to_contain_text("cellar")
    expect(page.locator("#line-bare")).to_be_visible()
    # One that comes while nobody looks at the page, which then hears no event, was never told of.
    page.evaluate(
        """window.away = (hidden) => {
             Object.defineProperty(document, "hidden", { configurable: true, get: () => hidden });
             document.dispatchEvent(new Event("visibilitychange"));
           }; away(true)"""
    )
    second = replace(new, id="GPU-second", name="GTX 1650")
    furnished.farm.registry.see_node(
        Node("node-cellar", "cellar", "192.168.1.44"), [new, second], time.time()
    )
    page.evaluate("away(false)")
    expect(found.nth(1)).to_contain_text("Found GTX 1650, 4 GB, on cellar")
    assert visit.never_reloaded()


def test_a_card_tells_in_words_what_decides_over_its_work(shown: Furnished, browser: Browser) -> None:
    with visiting(browser, shown.farm.base_url) as visit:
        visit.sign_in(shown.farm)
        card = visit.go("/cards").locator(".tile", has_text="RTX 2060")
        for said in (
            "half precision (fp16)",
            "550.120",
            f"PCIe 3 x4 of x16, about 3.0{words.THIN}GB/s",
            "Windows moved some of it to the PC's own.",
            "0 % of its renders came out well",
        ):
            expect(card).to_contain_text(said)
        desk = visit.page.locator("#node-node-desk .owner-rules")
        expect(desk).to_have_text("Its owner's rules: only while nobody uses the PC; hours 22:00-08:00.")
        expect(visit.page.locator("#node-node-attic .owner-rules")).to_have_count(0)


def test_pages_can_be_read_without_javascript(shown: Furnished, browser: Browser) -> None:
    with visiting(browser, shown.farm.base_url, java_script_enabled=False) as visit:
        visit.sign_in(shown.farm)
        visit.go("/")
        expect(visit.page.locator("#cards")).to_contain_text("step 23 of 50")
        visit.go("/submit")
        expect(visit.page.locator("#new noscript p")).to_be_visible()
        expect(visit.page.locator("#send")).to_be_hidden()
        visit.go(f"/jobs/{shown.jobs['failed'].id}")
        expect(visit.page.locator("#story")).to_contain_text("ran out of memory")


def test_times_have_the_exact_one_in_the_title(shown: Furnished, browser: Browser) -> None:
    with visiting(browser, shown.farm.base_url, locale="en-GB", timezone_id="Europe/Berlin") as visit:
        visit.sign_in(shown.farm)
        page = visit.go(f"/jobs/{shown.jobs['finished'].id}")
        time = page.locator(".page-head time").first
        expect(time).to_have_text("2\u202fh ago")
        title = page.evaluate(
            "(at) => new Intl.DateTimeFormat('en-GB', {dateStyle: 'medium', timeStyle: 'medium', timeZone: 'Europe/Berlin'}).format(at)",
            shown.jobs["finished"].created_at * 1000,
        )
        expect(time).to_have_attribute("title", title)


def test_python_and_javascript_use_the_same_words(shown: Furnished, browser: Browser) -> None:
    seconds = [
        None,
        -1.0,
        0.0,
        0.44,
        9.9,
        9.94,
        9.96,
        12.5,
        13.5,
        59.4,
        59.6,
        61.0,
        605.0,
        3599.4,
        3599.6,
        7260.0,
        90_000.0,
    ]
    passed = [0, 44, 46, 59, 90, 150, 3569, 3571, 5400, 9000, 86_399, 86_401, 129_600, 216_000, 2_600_000]
    views = [
        ProgressView(),
        ProgressView(done=3, total=16, phase="loading"),
        ProgressView(done=3, total=16, seconds_per_step=1.25, eta_s=61.0, phase="running"),
        ProgressView(phase="some_new_thing"),
        ProgressView(done=0, total=24, phase="assigned", stage=StageKind.INTERPOLATE),
        ProgressView(
            done=7, total=24, seconds_per_step=0.25, eta_s=4.25, phase="running", stage=StageKind.INTERPOLATE
        ),
    ]
    vitals = [
        Vitals(1.0),
        Vitals(1.0, utilization=0.975, temperature_c=70.5, power_w=154.5),
        Vitals(1.0, utilization=0.0, power_w=9.4),
    ]
    sizes = [1, 340_000_000, 999_999_999, 1_250_000_000, 83_400_000_000]
    rates = [None, 0.0, 0.125, 0.994, 0.996, 1.0, 1.15, 2.25, 99.94, 99.97, 100.0, 1234.5, 1_234_567.0]
    memory = [(6.0, 4.7, 0.5), (12.0, 0.19, 0.0), (6.0, 6.2, 7.0), (8.0, 8.0, 0.25)]
    with visiting(browser, shown.farm.base_url) as visit:
        visit.sign_in(shown.farm)
        said = visit.go("/").evaluate(
            """async ([seconds, passed, jobs, vitals, memory, sizes, statuses, rates]) => {
                 const words = await import("/static/words.js");
                 const now = 1760000000;
                 return [seconds.map(words.duration), passed.map((p) => words.ago(now - p, now)), jobs.map(words.progressLine),
                         vitals.map(words.vitalsLine),
                         memory.map((m) => words.memoryParts(...m).map((one) => [one.part, one.text, one.share])), sizes.map(words.gb),
                         statuses.map(words.jobWord).map((one) => [one.word, one.tone]), rates.map(words.rate)];
               }""",
            [
                seconds,
                passed,
                [view.model_dump(mode="json") for view in views],
                [asdict(v) for v in vitals],
                memory,
                sizes,
                list(JobStatus),
                rates,
            ],
        )
    assert said[0] == [words.duration(value) for value in seconds]
    assert said[1] == [words.ago(1_760_000_000 - value, 1_760_000_000) for value in passed]
    assert said[2] == [words.progress_line(view) for view in views]
    assert said[3] == [words.vitals_line(one) for one in vitals]
    assert said[5] == [words.gb(one) for one in sizes]
    assert said[6] == [[words.status_word(one).word, words.status_word(one).tone] for one in JobStatus]
    assert said[7] == [words.rate(one) for one in rates]
    for (vram, used, others), parts in zip(memory, said[4], strict=True):
        segments = read_bar(vram, used, others).segments
        assert [(part, text) for part, text, _ in parts] == [(one.part, one.text) for one in segments]
        assert [share for _, _, share in parts] == pytest.approx([one.share for one in segments], abs=0.01)


@pytest.mark.skipif(
    not os.environ.get("FARM_WRITE_DOC_IMAGES"), reason="FARM_WRITE_DOC_IMAGES=1 writes docs/images"
)
def test_write_the_pictures_of_the_documentation(shown: Furnished, browser: Browser) -> None:
    folder = Path(__file__).parents[2] / "docs" / "images"
    folder.mkdir(parents=True, exist_ok=True)
    pages = {
        "farm": "farm",
        "submit": "again",
        "jobs": "jobs",
        "job": "finished",
        "cards": "cards",
        "benchmarks": "benchmarks",
        "settings": "settings",
    }
    for scheme in ("light", "dark"):
        with visiting(
            browser, shown.farm.base_url, color_scheme=scheme, viewport={"width": 1280, "height": 860}
        ) as visit:
            visit.sign_in(shown.farm)
            for image, name in pages.items():
                visit.go(path_of(name, shown)).wait_for_load_state("load")
                if image == "submit":
                    expect(visit.page.locator("#can-draft")).not_to_be_empty()
                until(
                    visit.page,
                    "[...document.images].every((shown) => shown.complete || shown.loading === 'lazy')",
                )
                # Until its first frame is there the player shows a turning arc, and lets it turn to its end.
                until(
                    visit.page,
                    "[...document.querySelectorAll('video[src]')].every((clip) => clip.readyState >= 2)",
                )
                _picture(visit.page, folder / f"{image}-{scheme}.png")
    with visiting(browser, shown.farm.base_url, viewport=PHONE, device_scale_factor=2) as visit:
        visit.open_link(shown.farm)
        _picture(visit.page, folder / "farm-phone.png")


def _picture(page: Page, path: Path) -> None:
    """A screenshot in 256 colours, a third of the bytes: grounds and letters exactly as they are, of the rest also those of small dots."""
    shots: list[bytes] = []

    def rests() -> bool:
        shots.append(page.screenshot())
        return shots[-3:] == 3 * shots[-1:]

    wait_until(rests, what="a page on which nothing moves")
    shot = Image.open(io.BytesIO(shots[-1])).convert("RGB")
    found: Any = shot.getcolors(shot.width * shot.height)
    exact = [colour for _, colour in sorted(found, reverse=True)[:64]]
    rest = shot.quantize(192, method=Image.Quantize.MAXCOVERAGE).getpalette() or []
    palette = Image.new("P", (1, 1))
    palette.putpalette([*(value for colour in exact for value in colour), *rest])
    shot.quantize(palette=palette, dither=Image.Dither.NONE).save(path, optimize=True)
