"""A tab that one visit leaves to the next: a page in it costs half the processor time of one in a new browser, whose process must start."""

from typing import Literal

from playwright.sync_api import Browser, Page

# Without motion: the breathing dots cost a core where there is no GPU.
USUAL = {"viewport": {"width": 1280, "height": 900}, "reduced_motion": "reduce"}
_EMPTY = "/static/favicon.svg"
_left: list[Page] = []


def take(
    browser: Browser,
    *,
    color_scheme: Literal["light", "dark"] = "light",
    reduced_motion: Literal["reduce", "no-preference"] = "reduce",
) -> Page:
    """A tab in which nothing is left of any visit, and which is nobody else's until it is given back or closed."""
    page = _left.pop() if _left else browser.new_context(**USUAL).new_page()  # type: ignore[arg-type]  # the keys are its own
    page.emulate_media(color_scheme=color_scheme, reduced_motion=reduced_motion)
    return page


def give_back(page: Page, base_url: str) -> None:
    """Empties a tab that has seen no host but this one, and to which nobody listens any more.

    It leaves for a picture of the same host: from an empty page the way to the next one would be by a new process again.
    """
    for other in page.context.pages:
        if other != page:
            other.close()
    page.unroute_all()
    page.goto(base_url + _EMPTY)
    page.evaluate("localStorage.clear(); sessionStorage.clear(); window.name = ''")
    page.context.clear_cookies()
    page.mouse.move(0, 0)
    _left.append(page)


def forget() -> None:
    """The browser is gone, and its tabs with it."""
    _left.clear()
