"""One hierarchy of errors. Each says what was tried, on what, why it failed and what to do next."""


class FarmError(Exception):
    """Something the farm could not do; `remedy` is the sentence that tells a person what to do next."""

    def __init__(self, message: str, remedy: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.remedy = remedy

    def __str__(self) -> str:
        return f"{self.message} {self.remedy}".strip()


class BadInputError(FarmError):
    """What a user sent cannot be rendered. `field` names the form field (`image`, `settings.frames`, ...)."""

    def __init__(self, field: str, message: str, remedy: str = "") -> None:
        super().__init__(message, remedy)
        self.field = field


class BadSettingsError(BadInputError):
    """Several settings are wrong at once: `errors` has each; the error itself speaks of the first."""

    def __init__(self, errors: tuple[BadInputError, ...]) -> None:
        first = errors[0]
        super().__init__(first.field, first.message, first.remedy)
        self.errors = errors

    def __str__(self) -> str:
        return "\n".join(str(error) for error in self.errors)


class BodyTooLargeError(FarmError):
    """The upload is larger than the farm takes; it was refused while it was being read, nothing was kept."""


class NotFoundError(FarmError):
    """There is no such job, card, node or file."""


class IllegalMoveError(FarmError):
    """A job or attempt cannot make this move from its present status; see `farm.states`."""


class ConflictError(FarmError):
    """What was asked does not fit what is there; nothing was changed."""


class SignInError(FarmError):
    """The token is missing, wrong, expired or of the wrong kind."""


class ForbiddenError(FarmError):
    """Who asks is known, and may not do this: the role or scope is too small, or the job is someone else's."""


class TooManyTriesError(FarmError):
    """Signing in failed too often; `retry_after_s` says when the next try counts."""

    def __init__(self, message: str, remedy: str, retry_after_s: float) -> None:
        super().__init__(message, remedy)
        self.retry_after_s = retry_after_s


class CancelledRenderError(FarmError):
    """The render was asked to stop and did; not a failure."""


class MissingWeightsError(FarmError):
    """The model's weights are not on this PC, or are incomplete. The remedy names the download or directory."""


class WeightsTransferError(FarmError):
    """Weights could not be brought here: what came is damaged, is not taken, or stopped coming. Nothing half is in use."""


class DiskFullError(FarmError):
    """The disk has no room for what is to be kept; the message says how much is missing."""


class HostMemoryError(FarmError):
    """This PC has too little memory free for the weights that stream; the message says how much."""


class RenderFailedError(FarmError):
    """The model ran and did not give a usable video."""


class BrokenPictureError(RenderFailedError):
    """The model ran and its picture is black or not a number."""


class StaleCheckpointError(FarmError):
    """The checkpoint is damaged, or of another job, model or format: the render must start from the beginning."""


class EncodingFailedError(FarmError):
    """ffmpeg could not write the clip: the disk is full, or ffmpeg cannot run here. The frames were good."""


class HeadUnreachableError(FarmError):
    """The head did not answer; the remedy names the address and how to start it."""


class ConfigurationError(FarmError):
    """A setting or file of this PC's own configuration cannot be used."""
