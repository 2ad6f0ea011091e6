"""An actor of Ray's that does nothing: what the process of any actor costs. A module of its own, so that its process imports nothing else."""


class Bare:
    """Does nothing."""

    def ready(self) -> None:
        """Answers once it has started."""
