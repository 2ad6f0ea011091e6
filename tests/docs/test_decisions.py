"""The pages of docs/decisions: one number each, and what speaks of a number finds its page."""

import re
from collections import Counter
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent
PAGES = sorted((ROOT / "docs" / "decisions").glob("*.md"))
TEXTS = [
    *ROOT.glob("*.md"),
    *(
        file
        for folder in ("farm", "scheduler", "node_agent", "dashboard", "docs", "deploy", "benchmarks")
        for file in (ROOT / folder).rglob("*")
        if file.suffix in (".py", ".md", ".toml", ".sh", ".html", ".js") and file.is_file()
    ),
]


def test_each_number_is_one_pages() -> None:
    """Branches that were merged on one day each took the next free number: two pages were 0012, two 0016."""
    numbers = Counter(page.name[:4] for page in PAGES)
    assert [number for number, pages in numbers.items() if pages > 1] == []


def test_a_page_is_headed_by_its_number() -> None:
    for page in PAGES:
        heading = re.match(r"# (\d+)[.:] ", page.read_text())
        assert heading is not None, page.name
        assert int(heading[1]) == int(page.name[:4]), page.name


def test_decisions_that_are_spoken_of_are_there() -> None:
    known = {page.name[:4] for page in PAGES}
    spoken = {
        (number, file.relative_to(ROOT).as_posix())
        for file in TEXTS
        for number in re.findall(r"decisions/(\d{4})", file.read_text(encoding="utf-8"))
    }
    assert len(spoken) > 5
    assert {(number, file) for number, file in spoken if number not in known} == set()
