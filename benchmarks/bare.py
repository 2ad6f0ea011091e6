"""An actor of Ray that does nothing: what the process of any actor costs. Alone in its module, so that its process imports nothing else."""


class Bare:
    """Does nothing."""

    def ready(self) -> None:
        """Answers once it has started."""
