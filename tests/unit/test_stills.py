"""Small pictures in their cache: how many are kept, how many are made at once."""

import asyncio
import io
import os
import threading
from pathlib import Path

import pytest
from PIL import Image

from dashboard import stills
from dashboard.stills import Stills


@pytest.fixture
def photos(tmp_path: Path) -> list[Path]:
    found = []
    for number in range(6):
        found.append(tmp_path / f"photo-{number}")
        Image.effect_noise((640, 480), 90).convert("RGB").save(found[-1], "PNG")
    return found


def test_a_small_picture_is_not_made_larger(tmp_path: Path):
    for kind in ("PNG", "WEBP", "JPEG"):
        Image.new("RGB", (200, 16), "navy").save(tmp_path / "a", kind)
        with Image.open(io.BytesIO(stills.small(tmp_path / "a"))) as made:
            assert (made.format, made.size) == ("JPEG", (200, 16))


def test_those_that_nobody_asked_for_longest_go_first(tmp_path: Path, photos: list[Path]):
    cache = Stills(tmp_path / "cache", kept_bytes=4 * len(stills.small(photos[0])))

    def ask(number: int) -> None:
        asyncio.run(cache.of(photos[0], str(number)))

    def there() -> set[str]:
        return {path.name.partition("-")[0] for path in (tmp_path / "cache").iterdir()}

    for number in range(4):
        ask(number)
        os.utime(tmp_path / "cache" / f"{cache.name(str(number))}.jpg", (number, number))
    assert there() == {"0", "1", "2", "3"}
    ask(0)
    ask(4)
    assert there() == {"0", "3", "4"}
    ask(5)  # what was dropped counts no more
    assert there() == {"0", "3", "4", "5"}


def test_a_page_of_pictures_makes_each_once_and_few_at_a_time(
    tmp_path: Path, photos: list[Path], monkeypatch: pytest.MonkeyPatch
):
    lock, at_once, most, made = threading.Lock(), 0, 0, 0
    really = stills.small

    def counted(picture: Path) -> bytes:
        nonlocal at_once, most, made
        with lock:
            at_once, made = at_once + 1, made + 1
            most = max(most, at_once)
        found = really(picture)
        with lock:
            at_once -= 1
        return found

    monkeypatch.setattr(stills, "small", counted)
    cache = Stills(tmp_path / "cache")

    async def page() -> list[bytes]:
        return await asyncio.gather(*(cache.of(photo, photo.name) for photo in photos))

    first, second = asyncio.run(page()), asyncio.run(page())
    assert first == second
    assert made == len(photos)
    assert most <= stills.THREADS


def test_what_a_killed_process_left_is_not_shown(tmp_path: Path, photos: list[Path]):
    cache = tmp_path / "cache"
    cache.mkdir()
    (cache / "making-abc").write_bytes(b"half")
    of = Stills(cache)
    (cache / f"{of.name('a')}.jpg").touch()
    assert asyncio.run(of.of(photos[0], "a")) == stills.small(photos[0])
    assert [path.name for path in cache.iterdir()] == [f"{of.name('a')}.jpg"]
