"""What all answers share."""

from pydantic import BaseModel, ConfigDict


class Answer(BaseModel):
    """What all answers share: frozen, and a newer head's further fields do not break an older client."""

    model_config = ConfigDict(frozen=True, extra="ignore")
