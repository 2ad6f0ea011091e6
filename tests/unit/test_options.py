"""The options of a clip: one list for submit, batch and plan, which had three that differed."""

import inspect
from collections.abc import Callable

import pytest

from farm.cli.batch import batch
from farm.cli.jobs import submit
from farm.cli.options import CLIP, HANDLING, given
from farm.cli.plan import plan
from farm.model import RenderSettings
from farm.submit import SubmittedSettings


@pytest.mark.parametrize("command", [submit, batch, plan], ids=lambda command: command.__name__)
def test_each_command_takes_all_settings_of_a_clip(command: Callable[..., None]) -> None:
    """`farm batch` had no --smooth, and `farm plan` no --needs."""
    parameters = inspect.signature(command).parameters
    assert set(CLIP) | {"anywhere", "needs"} <= set(parameters)
    assert command is plan or "priority" in parameters


def test_the_names_are_those_of_the_api() -> None:
    assert set(SubmittedSettings.model_fields) == {*CLIP, *HANDLING}
    assert set(RenderSettings.__dataclass_fields__) <= set(CLIP)


def test_what_was_not_given_is_left_out_and_zero_is_given() -> None:
    parameters = {
        "prompt": None,
        "smooth": 0,
        "seed": 0,
        "anywhere": False,
        "needs": ["studio"],
        "folder": "x",
    }
    assert given(parameters) == {"smooth": 0, "seed": 0, "needs": ["studio"]}
    assert given(parameters | {"anywhere": True}, HANDLING) == {"anywhere": True, "needs": ["studio"]}
