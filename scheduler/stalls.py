"""Renders that stand still: how long a worker may say nothing while its node answers. Pure; times are monotonic seconds passed in.

A lease judges nodes that do not answer. This judges workers that answer and get nowhere: a step takes about as long as the last ones did.
"""

import math
from dataclasses import dataclass

from farm.events import Event, Rendering, Retrying, Step

STEPS = 12.0
"""So many times its expected length a step may take: more than a card loses by heat, or by an owner who works beside it."""
LEAST_S = 120.0
"""And this at least: a PC may swap, or wake its disk, for a minute."""
WHOLE_S = 900.0
"""For what has no steps to count by: to bring in a model (gigabytes from a slow disk), to encode, to decode on a small card."""
GRACE_S = 30.0
"""A worker that was told to stop has this long, or the length of two steps: it hears it between two steps."""


@dataclass(slots=True)
class Progress:
    """One attempt's news. `predicted_s` is what the planner expects of the whole render, `steps` how many it has, as far as is known."""

    predicted_s: float | None
    steps: int
    _since: float | None = None
    _step_s: float | None = None
    _between_steps: bool = False

    def hear(self, event: Event, now: float) -> None:
        """The worker said something: that is progress."""
        self._since = now
        if isinstance(event, Step):
            self.steps = event.total  # a draft counts its frames
            self._between_steps = 0 < event.done < event.total
            if event.seconds_per_step is not None:
                self._step_s = max(event.seconds_per_step, self._step_s or 0.0)
        elif isinstance(event, Rendering | Retrying):
            self._between_steps = False

    def quiet(self, now: float) -> None:
        """The node answered, and its worker had nothing to say."""
        if self._since is None:
            self._since = now

    def unheard(self) -> None:
        """The node did not answer: what its worker does meanwhile nobody knows, so the count begins anew."""
        self._since = None

    @property
    def expected_step_s(self) -> float | None:
        """What a step should take: the slowest so far, or what was predicted; None if nothing is known."""
        if self._step_s is not None or self.predicted_s is None or self.steps < 1:
            return self._step_s
        return self.predicted_s / self.steps

    @property
    def patience_s(self) -> float:
        """How long the worker may say nothing now."""
        step = self.expected_step_s
        if self._between_steps and step is not None:
            return max(LEAST_S, STEPS * step)
        return max(WHOLE_S, STEPS * (step or 0.0), self.predicted_s or 0.0)

    @property
    def grace_s(self) -> float:
        """How long the worker has to stop once it was told to."""
        return max(GRACE_S, 2 * (self.expected_step_s or 0.0))

    def silent_s(self, now: float) -> float:
        """Seconds without news, as far as its node answered."""
        return 0.0 if self._since is None else now - self._since

    def why(self, now: float) -> str | None:
        """Why the render counts as standing still, in a sentence; None while it does not."""
        silent = self.silent_s(now)
        if silent <= self.patience_s:
            return None
        step = self.expected_step_s
        if self._between_steps and step is not None:
            return f"No progress for {_long(silent)}, where a step takes about {_short(step)}."
        return f"No progress for {_long(silent)}, outside of its steps."


def _long(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 300 else f"{math.floor(seconds / 60)} min"


def _short(seconds: float) -> str:
    return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:.0f} s"
