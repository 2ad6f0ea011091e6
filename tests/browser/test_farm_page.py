"""The first screen: cards at work, the last clips, and a chart of what was done."""

import time
from pathlib import Path

import pytest
from playwright.sync_api import Browser, expect

from farm.feed import CardChanged, LiveCard
from farm.model import Node
from farm.vitals import Vitals
from tests.browser.conftest import Furnished, until, visiting
from tests.browser.farm_in_use import CPU, RTX_2060, RTX_3060
from tests.integration.dashboard_server import FakeScheduler, running_dashboard

pytestmark = pytest.mark.browser


def test_a_card_at_work_shows_its_job_and_its_memory(shown: Furnished, browser: Browser) -> None:
    job = shown.jobs["running"]
    with visiting(browser, shown.farm.base_url) as visit:
        visit.sign_in(shown.farm)
        visit.go("/")
        tile = visit.page.locator(f'[data-card="{RTX_3060.id}"]')
        expect(tile).to_contain_text("Rendering: step 23 of 50, 1.8\u202fs per step")
        expect(tile.locator("img[data-preview]")).to_have_attribute(
            "src", f"/api/v1/jobs/{job.id}/preview?n=3"
        )
        expect(tile.get_by_role("link", name=job.settings.prompt)).to_be_visible()
        bar = tile.get_by_role("img", name="Memory of 12\u202fGiB")
        expect(bar).to_have_attribute(
            "aria-label",
            "Memory of 12\u202fGiB: 5.4\u202fGiB farm and driver, 0.5\u202fGiB other programs, 6.1\u202fGiB free",
        )
        widths = bar.locator("rect").evaluate_all(
            "(all) => all.map((one) => Number(one.getAttribute('width')))"
        )
        assert widths == pytest.approx([100 * 5.4 / 12, 100 * 0.5 / 12, 100 * 6.1 / 12], abs=0.01)
        expect(tile).to_contain_text("68\u202f°C, 97\u202f% in use, 162\u202fW")
        idle = visit.page.locator(f'[data-card="{CPU.id}"]')
        expect(idle).to_contain_text("without memory of its own")
        expect(idle.locator("svg")).to_have_count(0)
        silent = visit.page.locator(f'[data-card="{RTX_2060.id}"]')
        expect(silent).to_contain_text("Its PC may be asleep")
        order = visit.page.locator("#cards [data-card]").evaluate_all(
            "(all) => all.map((one) => one.dataset.state)"
        )
        assert order == ["busy", "not answering", "idle"]


@pytest.mark.parametrize("path", ["/", "/cards"])
def test_readings_change_in_place_as_reports_come(path: str, furnished: Furnished, browser: Browser) -> None:
    """A card's temperature, use, power and memory, on both pages that show cards; the page is not fetched anew for them."""
    hot = LiveCard(
        RTX_3060.id,
        "node-desk",
        "desk",
        "RTX 3060",
        "busy",
        job_id=furnished.jobs["running"].id,
        vitals=Vitals(2.0, utilization=1.0, memory_used_gib=9.0, temperature_c=74.0, power_w=170.4),
        others_gib=3.0,
    )
    with visiting(browser, furnished.farm.base_url) as visit:
        visit.sign_in(furnished.farm)
        page = visit.go(path)
        card = page.locator(f'[data-card="{RTX_3060.id}"]')
        expect(card.locator("[data-vitals]")).to_have_text("68\u202f°C, 97\u202f% in use, 162\u202fW")
        expect(page.locator("#updated")).to_contain_text("Updated")
        fetched: list[str] = []
        visit.listen("request", lambda asked: fetched.append(asked.url))
        furnished.scheduler.publish(CardChanged(hot))
        expect(card.locator("[data-vitals]")).to_have_text("74\u202f°C, 100\u202f% in use, 170\u202fW")
        expect(card.locator("svg.memory")).to_have_attribute(
            "aria-label",
            "Memory of 12\u202fGiB: 6\u202fGiB farm and driver, 3\u202fGiB other programs, 3\u202fGiB free",
        )
        assert card.locator(".memory-legend > span").all_text_contents() == [
            "6\u202fGiB farm and driver",
            "3\u202fGiB other programs",
            "3\u202fGiB free",
        ]
        assert [url for url in fetched if url.endswith(path)] == []


def test_the_last_clips_play_while_they_are_pointed_at(shown: Furnished, browser: Browser) -> None:
    with visiting(browser, shown.farm.base_url, reduced_motion="no-preference") as visit:
        visit.sign_in(shown.farm)
        visit.go("/")
        clip = visit.page.locator(".clip").first
        video = clip.locator("video")
        assert video.get_attribute("src") is None  # nothing is loaded before
        clip.scroll_into_view_if_needed()
        clip.hover()
        until(visit.page, "document.querySelector('.clip video').currentTime > 0")
        visit.page.mouse.move(0, 0)
        until(visit.page, "document.querySelector('.clip video').paused")


def test_the_chart_follows_window_and_card_and_both_live_in_the_address(
    shown: Furnished, browser: Browser
) -> None:
    with visiting(browser, shown.farm.base_url) as visit:
        visit.sign_in(shown.farm)
        page = visit.go("/")
        page.locator("#throughput").scroll_into_view_if_needed()
        expect(page.locator("#chart .uplot")).to_have_count(1)
        expect(page.get_by_role("button", name="The last 24 hours")).to_have_attribute("aria-pressed", "true")
        row = page.locator("#chart-figures tr", has_text="RTX 3060")
        expect(row.locator("td").nth(0)).to_have_text("2")  # of the last day; the third is two days old
        expect(row.locator("td").nth(3)).to_have_text("2.4\u202fs")  # 189.6 s for 80 steps
        expect(row.locator("td").nth(4)).to_have_text("4.3")
        silent = page.locator("#chart-figures tr", has_text="Ryzen 5 3600")
        expect(silent.locator("td").nth(4)).to_have_text("none")  # it tells no power: never nought
        page.get_by_role("button", name="The last 7 days").click()
        expect(row.locator("td").nth(0)).to_have_text("3")
        page.get_by_role("combobox", name="Card").select_option(RTX_3060.id)
        expect(page.locator("#chart-figures tbody tr")).to_have_count(1)
        assert f"window=7d&card={RTX_3060.id}" in page.url
        page.reload()
        page.locator("#throughput").scroll_into_view_if_needed()
        expect(page.locator("#chart-figures tbody tr")).to_have_count(1)
        expect(page.get_by_role("button", name="The last 7 days")).to_have_attribute("aria-pressed", "true")


def test_an_empty_window_says_none_and_draws_nothing(shown: Furnished, browser: Browser) -> None:
    with visiting(browser, shown.farm.base_url) as visit:
        visit.sign_in(shown.farm)
        page = visit.go(f"/?window=1h&card={RTX_2060.id}")
        page.locator("#throughput").scroll_into_view_if_needed()
        expect(page.locator("#chart-says")).to_have_text(
            "RTX 2060 of attic finished no clip in the last hour."
        )
        expect(page.locator("#chart .uplot")).to_have_count(0)


def test_the_chart_that_comes_with_the_first_card_is_alive(tmp_path: Path, browser: Browser) -> None:
    """On a page that was opened before its first card the chart stayed empty and its buttons dead until a reload."""
    with (
        running_dashboard(tmp_path) as farm,
        FakeScheduler(farm.data) as scheduler,
        visiting(browser, farm.base_url) as visit,
    ):
        visit.sign_in(farm)
        page = visit.go("/")
        expect(page.locator("#updated")).to_contain_text("Updated")
        expect(page.locator("#throughput")).to_have_count(0)
        farm.registry.see_node(Node(CPU.node_id, "desk", "192.168.1.20"), [CPU], time.time())
        scheduler.publish(CardChanged(LiveCard(CPU.id, CPU.node_id, "desk", CPU.name, "idle")))
        page.locator("#throughput").scroll_into_view_if_needed()
        expect(page.locator("#chart-says")).to_have_text("No clip was finished in the last 24 hours.")
        page.get_by_role("button", name="The last 7 days").click()
        expect(page.locator("#chart-says")).to_have_text("No clip was finished in the last 7 days.")


def test_a_job_that_the_page_has_no_room_for_makes_it_fetch_itself_once(
    furnished: Furnished, browser: Browser
) -> None:
    """Each word about a job that is not shown made the page fetch itself anew: with 100 cards, without end."""
    from farm.feed import JobChanged, LiveJob

    with visiting(browser, furnished.farm.base_url) as visit:
        visit.sign_in(furnished.farm)
        page = visit.go("/")
        fetched: list[str] = []
        visit.listen("request", lambda asked: fetched.append(asked.url) if asked.url.endswith("/") else None)
        expect(page.locator("#updated")).to_contain_text("Updated")
        for done in range(1, 40):
            furnished.scheduler.publish(JobChanged(LiveJob("01ELSEWHERE", "running", done=done, total=40)))
            page.wait_for_timeout(60)
        assert len(fetched) == 1
