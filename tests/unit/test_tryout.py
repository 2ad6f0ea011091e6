"""A CPU card's tiny render of known result: passed here for real, and failed where something on its way is broken."""

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest

from farm.model import CardKind
from farm.wire import CardReport
from node_agent import tryout
from node_agent.pipelines.animatic import Animatic
from node_agent.pipelines.base import Frame, RenderRequest, Report
from node_agent.standing import RETEST_S, Standing, WorkerWord
from node_agent.tryout import SETTINGS, render_trouble, render_trouble_apart

CPU = CardReport("CPU-n1", CardKind.CPU, "Ryzen 5")


def test_this_pc_passes_in_a_process_of_its_own() -> None:
    assert render_trouble_apart("Ryzen 5") is None


def test_frames_of_another_colour_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """A processor or memory that computes wrongly gives a clip that decodes."""

    def wrong(_self: Animatic, request: RenderRequest, _report: Report) -> Iterator[Frame]:
        for number in range(request.settings.frames):
            frame = np.full((SETTINGS.height, SETTINGS.width, 3), tryout.COLOUR, dtype=np.uint8)
            frame[30, 5, 1] += 9 if number in (2, 5) else 1
            yield frame

    monkeypatch.setattr(Animatic, "render", wrong)
    assert render_trouble() == "2 of 8 frames have another colour than the picture"


def test_a_clip_that_cannot_be_encoded_is_trouble_with_its_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("IMAGEIO_FFMPEG_EXE", "/no/such/ffmpeg")
    said = render_trouble_apart("Ryzen 5")
    assert said is not None
    assert said.startswith("Ryzen 5 failed a tiny render: ")
    assert "ffmpeg" in said


def test_one_that_hangs_is_ended_and_said_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tryout, "LIMIT_S", 0.01)
    said = render_trouble_apart("Ryzen 5")
    assert said is not None
    assert "did not finish a tiny render within 0 s" in said


# --- what its agent makes of it ---
def test_a_cpu_that_is_being_tested_gets_no_work_until_it_has_passed() -> None:
    """A CPU counted as tested whatever its worker was at: a paused one was back without a test."""
    standing = Standing()
    standing.hear(WorkerWord(7, tested=False), 0.0)
    assert not standing.of(CPU).tested
    standing.hear(WorkerWord(7, tested=True, trouble="It failed."), 1.0)
    assert standing.of(CPU) == replace(CPU, trouble="It failed.")
    assert standing.shall_retest(1.0 + RETEST_S)
    standing.hear(WorkerWord(8, tested=True), 2.0)
    assert standing.of(CPU) == CPU
