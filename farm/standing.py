"""How a card's state reads in a sentence on why a job waits. The scheduler and the dashboard say it alike."""

from farm.feed import LiveCard

DRAINED = "A person drained its PC; `farm resume` gives it work again."
"""What a card says of a drained PC; while it is at its last work there, it is still busy."""
STANDING = {
    "idle": "",
    "busy": "is busy",
    "starting": "is starting",
    "not answering": "does not answer",
    "trouble": "is in trouble",
    "kept": "is kept for its owner",
}
"""What to say of a card in a state; of one that is not here, that it "is" so: "is drained", "is paused"."""


def state_of(live: LiveCard) -> str:
    """A card's state; of one that is at its last work what comes then: nobody should be told to wait for its end."""
    if live.state == "busy" and live.why is not None:
        return "drained" if live.why == DRAINED else "paused"
    return live.state


def in_words(state: str) -> str:
    """What a card in this state does: "is busy", "does not answer"; "" for an idle one."""
    return STANDING.get(state, f"is {state}")
