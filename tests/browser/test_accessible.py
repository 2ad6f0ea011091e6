"""Every page under axe-core: no fault that it calls serious or critical, in both colours."""

from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect

from tests.browser.conftest import Furnished, visiting
from tests.browser.test_pages import PAGES, in_scheme, path_of
from tests.integration.dashboard_server import RunningDashboard
from tests.waiting import wait_until

pytestmark = pytest.mark.browser

AXE = (Path(__file__).with_name("vendor") / "axe.min.js").read_text(encoding="utf-8")


# Only what is asked for leaves the browser: the whole report costs as much to bring over as to make.
_RUN = """async ([impacts, coloursOnly]) => {
  const byColour = axe.getRules(["cat.color"]).filter((rule) => !rule.tags.includes("wcag2aaa")).map((rule) => rule.ruleId);
  const found = await axe.run(document, { resultTypes: ["violations"], ...(coloursOnly && { runOnly: byColour }) });
  const faults = found.violations.filter((one) => impacts.includes(one.impact));
  return [found.passes.length, faults.map((one) => [one.id, one.help, one.nodes.map((node) => node.html.slice(0, 160))])];
}"""


def serious(page: Page, *, colours_only: bool = False) -> list[str]:
    """What axe-core finds serious or critical, each with the elements. It is put in by the debugger: our CSP lets no foreign script in."""
    if not page.evaluate("'axe' in window"):
        page.evaluate(AXE)
    passes, faults = page.evaluate(_RUN, [["serious", "critical"], colours_only])
    assert passes, "axe looked at nothing"
    return [f"{name}: {what}: {elements}" for name, what, elements in faults]


def serious_in_both_schemes(page: Page) -> list[str]:
    """Light and then dark, in which it stays. Only what axe calls its rules of colour can find something else in the second."""
    in_scheme(page, "light")
    found = serious(page)
    in_scheme(page, "dark")
    return found + serious(page, colours_only=True)


def test_axe_finds_what_is_wrong(shown: Furnished, browser: Browser) -> None:
    """The check itself can fail: a picture without a text for it is found."""
    with visiting(browser, shown.farm.base_url) as visit:
        visit.sign_in(shown.farm)
        visit.go("/")
        visit.page.evaluate(
            "document.body.append(Object.assign(document.createElement('img'), {src: '/static/favicon.svg'}))"
        )
        assert any(fault.startswith("image-alt") for fault in serious(visit.page))


def test_axe_finds_colours_that_only_the_dark_makes_unreadable(shown: Furnished, browser: Browser) -> None:
    with visiting(browser, shown.farm.base_url) as visit:
        visit.sign_in(shown.farm)
        page = visit.go("/settings")
        page.locator("h1").evaluate("(heading) => { heading.style.color = '#222'; }")
        (fault,) = serious_in_both_schemes(page)
        assert fault.startswith("color-contrast")


def test_no_page_has_a_serious_fault(shown: Furnished, browser: Browser) -> None:
    """The pages are opened in the dark; `test_pages_are_quiet_and_readable` opens them in the light."""
    with visiting(browser, shown.farm.base_url, color_scheme="dark") as visit:
        visit.go("/signin").wait_for_load_state("load")  # no script of it waits for the style sheet
        assert serious_in_both_schemes(visit.page) == []
        visit.sign_in(shown.farm)
        for name in PAGES:
            page = visit.go(path_of(name, shown))
            if name in ("submit", "again"):
                wait_until(lambda page=page: page.locator(".forecast").count(), what="the planner's answer")
                page.locator("details.advanced").evaluate("(folded) => { folded.open = true; }")
            if name == "farm":
                page.locator("#throughput").scroll_into_view_if_needed()
                wait_until(lambda page=page: page.locator(".uplot").count(), what="the chart")
            if name == "cards":
                page.locator("[data-history] summary").evaluate_all(
                    "(all) => all.forEach((one) => one.click())"
                )
                expect(page.locator(".history .uplot")).to_have_count(1)
                expect(page.locator(".history .timeline li").first).to_be_visible()
            if name == "jobs":
                page.locator("[name=pick]").first.check()
            assert serious_in_both_schemes(page) == [], name


def test_an_empty_farm_has_no_serious_fault(empty: RunningDashboard, browser: Browser) -> None:
    with visiting(browser, empty.base_url) as visit:
        visit.sign_in(empty)
        for path in ("/", "/submit", "/jobs", "/cards", "/benchmarks", "/settings"):
            assert serious(visit.go(path)) == [], path
