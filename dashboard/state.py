"""How the farm is, in a word with its reason, from the states of its cards. Pure."""

from collections import Counter
from collections.abc import Mapping, Sequence

from dashboard.words import Word, many
from farm.model import JobStatus

_WELL = ("idle", "busy", "starting")
_RESTING = ("paused", "kept", "drained")


def farm_state(*, connected: bool, states: Sequence[str], counts: Mapping[JobStatus, int]) -> Word:
    """The farm's state in a word, with its reason; `states` are those of its cards."""
    if not connected:
        return Word(
            "Scheduler not answering",
            "bad",
            "New jobs are stored and wait for it; what is shown of cards and progress may be old. "
            "`farm up` starts it again by itself.",
        )
    if not states:
        return Word("No cards", "wait", "Nothing can render until a PC has joined.")
    return _state_of_cards(states, counts[JobStatus.RUNNING], counts[JobStatus.QUEUED])


def _state_of_cards(states: Sequence[str], running: int, queued: int) -> Word:
    count = Counter(states)
    known = many(len(states), "card")
    also = "".join(f"; {said}" for said in _beside(count))
    waiting = f", {many(queued, 'job')} waiting" if queued else ""
    if running:
        return Word(
            "Rendering", "live", f"{many(running, 'job')} on {count['busy']} of {known}{waiting}{also}."
        )
    if not any(count[state] for state in _WELL):
        return _nothing_renders(count, known, waiting)
    if queued:
        jobs = "1 job waits" if queued == 1 else f"{many(queued, 'job')} wait"
        return Word(
            "Waiting", "wait", f"{jobs} for a card that can run {'it' if queued == 1 else 'them'}{also}."
        )
    if not count["idle"]:
        return Word("Starting", "wait", f"{many(count['starting'], 'card')} starting{also}.")
    return Word("Idle", "good", f"{count['idle']} of {known} ready{also}.")


def _nothing_renders(count: Counter[str], known: str, waiting: str) -> Word:
    """No card is well: broken, or only at rest, which is nothing to be alarmed about."""
    if not any(count[state] for state in _RESTING):
        return Word("No card answers", "bad", f"{known} known{waiting}; the Cards page says why.")
    every = "The only card is" if count.total() == 1 else f"All {known} are"
    if count["kept"] == count.total():
        whose = "its owner" if count.total() == 1 else "their owners"
        return Word("Resting", "wait", f"{every} with {whose}{waiting}; the Cards page says why.")
    if count["drained"] == count.total():
        return Word("Drained", "wait", f"{every} drained{waiting}; `farm resume` gives a PC work again.")
    if count["kept"] or count["drained"]:
        return Word("Resting", "wait", f"{'; '.join(_beside(count))}{waiting}.")
    return Word("Paused", "bad", f"{'; '.join(_beside(count))}{waiting}; the Cards page says why.")


def _beside(count: Counter[str]) -> list[str]:
    """The cards that take no work, by why: "1 card not answering or in trouble", "2 cards kept for their owners"."""
    ill = count.total() - sum(count[state] for state in (*_WELL, *_RESTING))
    told = (
        (ill, "not answering or in trouble"),
        (count["paused"], "waiting for a test"),
        (count["kept"], "kept for its owner" if count["kept"] == 1 else "kept for their owners"),
        (count["drained"], "drained"),
    )
    return [f"{many(cards, 'card')} {what}" for cards, what in told if cards]
