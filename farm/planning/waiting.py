"""What a job waits for, in a sentence: from the verdicts on every card, and from what the cards do. Pure."""

from collections import Counter
from collections.abc import Mapping, Sequence

from farm.model import Card
from farm.planning.eligibility import Verdict, nearest

NO_CARD = "No card has joined the farm yet: start `farm join` on a PC."


def why_waiting(found: Sequence[tuple[Card, Verdict]], states: Mapping[str, str]) -> str:
    """What a job waits for, from the verdicts on every card.

    `states` says by id what a card does: "is busy", "does not answer"; "" or nothing for one that is idle.
    """
    if not found:
        return NO_CARD
    able = [(card, state_for(card, verdict, states)) for card, verdict in found if verdict.able]
    if not able:
        return none_can(found)
    return waits_for(Counter(state for _, state in able), able[0][0].name)


def none_can(found: Sequence[tuple[Card, Verdict]]) -> str:
    """What is said where no card is able: the one that comes nearest, and what speaks against it."""
    card, verdict = nearest(found)
    return f"No card can run it. The nearest is {card.name}: {'; '.join(verdict.reasons)}."


def waits_for(states: Mapping[str, int], name: str, *, next_up: bool = True) -> str:
    """What a job waits for, from how many of the cards that can run it are in each state ("" for an idle one).

    `name` is the card's where there is but one. `next_up`: no more jobs stand before it than cards are idle.
    """
    able, idle = sum(states.values()), states.get("", 0)
    if idle and not next_up:
        if able == 1:
            return f"Waits for the jobs before it, which {name} takes first."
        return f"Waits for the jobs before it; of {able} cards that can run it {idle} {_plural('is idle', idle)}."
    if idle:
        return (
            "Its turn comes next."
            if able == idle
            else f"Its turn comes next: {idle} of {able} cards that can run it {_plural('is idle', idle)}."
        )
    if able == 1:
        (state,) = states
        return f"Waits for {name}, which {state}."
    if len(states) == 1:
        (state,) = states
        return f"Waits for one of {able} cards that can run it; {_all(state)}."
    ordered = sorted(states.items(), key=lambda pair: -pair[1])
    told = ", ".join(f"{number} {_plural(state, number)}" for state, number in ordered)
    return f"Waits for one of {able} cards that can run it: {told}."


def state_for(card: Card, verdict: Verdict, states: Mapping[str, str]) -> str:
    """What keeps an able card from the job right now; "" for nothing. `states` as in `why_waiting`."""
    return verdict.reasons[0].removeprefix(f"{card.name} ") if verdict.reasons else states.get(card.id, "")


def _all(state: str) -> str:
    return "none answers" if state == "does not answer" else f"all {_plural(state, 2)}"


def _plural(state: str, number: int) -> str:
    """A state of several cards: "is busy" is "are busy", "does not answer" is "do not answer"."""
    if number == 1:
        return state
    for one, many in (("is ", "are "), ("does ", "do "), ("works ", "work ")):
        if state.startswith(one):
            return many + state.removeprefix(one)
    return state
