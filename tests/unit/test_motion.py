"""What a prompt's words make the camera do."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from farm.motion import MAX_STRENGTH, MOTIONS, choose_move, read_prompt


@pytest.mark.parametrize(
    ("prompt", "motion"),
    [
        ("zoom", "zoom-in"),
        ("slow zoom in on her face", "zoom-in"),
        ("Zooming in, golden light", "zoom-in"),
        ("push in on the bottle", "zoom-in"),
        ("zoom out", "zoom-out"),
        ("the camera slowly zooms out over the valley", "zoom-out"),
        ("zoom slowly out", "zoom-out"),
        ("pull back to show the city", "zoom-out"),
        ("pan left", "pan-left"),
        ("camera pans slowly to the left", "pan-left"),
        ("a street, panning left", "pan-left"),
        ("camera moves left", "pan-left"),
        ("pan right", "pan-right"),
        ("PAN\n RIGHT", "pan-right"),
        ("pan over to the right", "pan-right"),
        ("tilt up to the spire", "pan-up"),
        ("pan down", "pan-down"),
        ("walking forward", "forward"),
        ("a woman walking slowly forward through snow", "forward"),
        ("she walks forward", "forward"),
        ("camera moves forward", "forward"),
        ("drone flying forward", "forward"),
        ("dolly in", "forward"),
        ("orbit around the statue", "orbit"),
        ("camera circles the car", "orbit"),
        ("zoom in, then pan left", "zoom-in"),
        ("pan left and zoom out", "pan-left"),
        ("no zoom, pan left", "pan-left"),
        ("", None),
        ("a man with a zoom lens", None),
        ("frying pan on the left", None),
        ("a car parked left of a pan", None),
        ("he leans forward", None),
        ("don't zoom", None),
        ("without any panning left", None),
        ("looking forward to spring", None),
        ("a panda, a company, an orbital", None),
    ],
)
def test_the_move_that_a_prompt_asks_for(prompt: str, motion: str | None) -> None:
    assert read_prompt(prompt)[0] == motion


@pytest.mark.parametrize(
    ("prompt", "factor"),
    [
        ("zoom in", 1.0),
        ("slow zoom in", 0.5),
        ("zoom in slowly", 0.5),
        ("pan left, gently", 0.5),
        ("slow", 0.5),
        ("slow camera move", 0.5),
        ("gentle orbit", 0.5),
        ("fast zoom", 1.6),
        ("zoom fast", 1.6),
        ("zooming in fast", 1.6),
        ("quickly pan right", 1.6),
        ("a fast car, pan left", 1.0),
        ("pan left, a slow river", 1.0),
        ("breakfast on a table", 1.0),
        ("static camera", 0.0),
        ("the camera is still, leaves falling", 0.0),
        ("no camera movement", 0.0),
        ("a still life with pears", 1.0),
    ],
)
def test_the_strength_that_a_prompt_asks_for(prompt: str, factor: float) -> None:
    assert read_prompt(prompt)[1] == factor


def test_a_named_motion_outranks_the_prompt() -> None:
    move = choose_move("pan-up", 1.0, "slow zoom out", seed=0)
    assert (move.motion, move.strength, move.asked) == ("pan-up", 1.0, True)


def test_the_seed_decides_only_what_nobody_asked_for() -> None:
    assert len({choose_move("auto", 1.0, "pan left", seed) for seed in range(8)}) == 1
    assert len({choose_move("orbit", 1.0, "", seed) for seed in range(8)}) == 1
    default = {choose_move("auto", 1.0, "a red house", seed) for seed in range(8)}
    assert {move.mirrored for move in default} == {True, False}
    assert {(move.motion, move.strength) for move in default} == {("orbit", 1.0)}


def test_an_unknown_motion_is_refused() -> None:
    with pytest.raises(ValueError, match="spin"):
        choose_move("spin", 1.0, "", 0)


@given(st.sampled_from(MOTIONS), st.floats(-5, 5), st.text(max_size=200), st.integers(0, 2**63))
def test_any_request_gives_a_move_that_can_be_made(
    motion: str, strength: float, prompt: str, seed: int
) -> None:
    move = choose_move(motion, strength, prompt, seed)
    assert move.motion in MOTIONS
    assert move.motion != "auto"
    assert 0.0 <= move.strength <= MAX_STRENGTH
    assert math.isfinite(move.strength)


@given(st.text("zompan leftowlycgdi ,.", max_size=10_000))
def test_no_prompt_takes_long(prompt: str) -> None:
    """A careless pattern can need minutes for one prompt; pytest's and hypothesis' time limits hold this."""
    read_prompt(prompt)
