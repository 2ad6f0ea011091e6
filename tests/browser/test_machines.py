"""The cards page as the place from which a person drains, resumes and forgets PCs."""

from dataclasses import replace

import pytest
from playwright.sync_api import expect

from farm.feed import CardChanged, LiveCard
from farm.store.requests import RequestKind
from tests.browser.conftest import Furnished, Visit
from tests.browser.farm_in_use import RTX_2060, RTX_3060
from tests.waiting import wait_until

pytestmark = pytest.mark.browser


def asked(furnished: Furnished) -> list[tuple[RequestKind, str]]:
    """What waits for the scheduler about PCs."""
    return [(one.kind, one.node_id) for one in furnished.use.requests.waiting() if one.node_id]


def test_a_pc_is_drained_and_resumed_with_a_button(furnished: Furnished, visit: Visit) -> None:
    """The API could, and no page: a person had to open a terminal."""
    page = visit.go("/cards")
    visit.mark()
    desk = page.locator("#node-node-desk")
    expect(desk.get_by_role("button", name="Resume desk")).to_have_count(0)
    desk.get_by_role("button", name="Drain desk").click()
    expect(desk).to_contain_text("drained just now: ends what it is at, and gets nothing new")
    expect(desk.get_by_role("button", name="Drain desk")).to_have_count(0)
    assert furnished.farm.reader.node("node-desk").drained_at is not None
    desk.get_by_role("button", name="Resume desk").click()
    expect(desk.get_by_role("button", name="Drain desk")).to_be_visible()
    expect(desk).not_to_contain_text("drained")
    assert furnished.farm.reader.node("node-desk").drained_at is None
    assert asked(furnished) == [(RequestKind.DRAIN, "node-desk"), (RequestKind.RESUME, "node-desk")]
    assert visit.never_reloaded()


def test_a_pc_that_is_gone_is_forgotten_after_a_question_and_one_that_is_there_is_not(
    furnished: Furnished, visit: Visit
) -> None:
    page = visit.go("/cards")
    attic = page.locator("#node-node-attic")
    expect(page.get_by_role("button", name="Forget desk")).to_have_count(0)
    forget, dialog = attic.get_by_role("button", name="Forget attic"), page.locator("#ask")
    forget.click()
    expect(dialog).to_contain_text("it comes back only with a new join code")
    dialog.get_by_role("button", name="Keep it").click()
    expect(dialog).to_be_hidden()
    assert asked(furnished) == []
    visit.expected.append("/api/v1/nodes/node-attic")
    furnished.use.join(RTX_2060, node_attic=14.0)  # on a busy machine half a minute may have gone by
    forget.click()
    dialog.get_by_role("button", name="Forget the PC").click()
    expect(dialog).to_contain_text("only one that is gone can be forgotten")
    furnished.use.join(RTX_2060, node_attic=120.0)
    dialog.get_by_role("button", name="Forget the PC").click()
    expect(attic).to_have_count(0)
    assert asked(furnished) == [(RequestKind.FORGET, "node-attic")]


def test_a_card_that_is_kept_or_paused_says_why_and_a_pause_can_be_ended(
    furnished: Furnished, visit: Visit
) -> None:
    page = visit.go("/cards")
    card = page.locator(f'[data-card="{RTX_3060.id}"]')
    kept = LiveCard(
        RTX_3060.id, "node-desk", "desk", "RTX 3060", "kept", why="kept for its owner: a game uses the card"
    )
    furnished.scheduler.publish(CardChanged(kept))
    expect(card).to_contain_text("Kept for its owner")
    expect(card).to_contain_text("a game uses the card")
    expect(page.get_by_role("button", name="Resume desk")).to_have_count(0)
    furnished.scheduler.publish(CardChanged(replace(kept, state="paused", why="Three jobs failed on it.")))
    expect(card).to_contain_text("Three jobs failed on it.")
    page.get_by_role("button", name="Resume desk").click()
    wait_until(lambda: asked(furnished) == [(RequestKind.RESUME, "node-desk")], what="the wish")


def test_a_card_s_history_is_drawn_when_it_is_opened_and_says_none_where_nothing_was_told(
    furnished: Furnished, visit: Visit
) -> None:
    """The page asks for none of it before, and looking at the farm anew leaves an open one as it is."""
    asked_for: list[str] = []
    visit.listen("request", lambda request: asked_for.append(request.url))
    page = visit.go("/cards")
    expect(page.locator("#updated")).to_contain_text("Updated")
    assert not [url for url in asked_for if "uPlot.iife" in url or url.endswith("/history")]
    card = page.locator(f"#history-{RTX_3060.id}")
    card.locator("summary").click()
    expect(card.locator("canvas")).to_have_count(1)
    expect(card.locator(".history-chart")).to_have_attribute(
        "aria-label", "Temperature, In use, Memory of RTX 3060 in the last 24 hours"
    )
    expect(card.locator(".history-says")).to_have_text(
        "At most 68\u202f°C, 49\u202f% in use on average, at most 8.6\u202fGiB of memory."
    )
    expect(card.locator(".timeline")).to_contain_text("Nothing was heard of it for 2\u202fh 00\u202fmin")
    furnished.scheduler.publish(
        CardChanged(LiveCard(RTX_3060.id, "node-desk", "desk", "RTX 3060", "idle", why="Now idle."))
    )
    expect(page.locator(f"#card-{RTX_3060.id}")).to_contain_text("Now idle.")
    expect(card.locator("canvas")).to_have_count(1)

    silent = page.locator(f"#history-{RTX_2060.id}")
    silent.locator("summary").click()
    silent.get_by_role("button", name="The last 7 days").click()
    expect(silent.locator(".history-says")).to_have_text(
        "RTX 2060 told no temperature, use or memory in the last 7 days."
    )
    expect(silent.locator("canvas")).to_have_count(0)
    failed = silent.locator(".timeline li").first
    expect(failed).to_contain_text("An attempt failed: RTX 2060 ran out of memory while decoding")
    expect(failed.get_by_role("link")).to_have_attribute("href", f"/jobs/{furnished.jobs['failed'].id}")
