"""Ending the token of a program or a person. `dashboard.api.join` makes codes for PCs; all other tokens are made on the command line."""

from typing import Annotated

from fastapi import APIRouter, Depends

from dashboard.parts import Parts, parts
from dashboard.problems import Responses, documented
from farm.answers.keeping import EndedView
from farm.errors import NotFoundError

router = APIRouter(tags=["settings"])

ANSWER: Responses = {
    200: {
        "description": "It ended",
        "content": {"application/json": {"example": {"name": "laptop", "sessions": 1, "this_pc": False}}},
    }
}


@router.delete("/tokens/{token_id}", summary="End a token", responses=ANSWER | documented(401, 404))
def end(farm: Annotated[Parts, Depends(parts)], token_id: str) -> EndedView:
    """Whoever uses it is refused from now on, and the browsers that signed in with it are signed out. A PC's own ends with the PC."""
    now = farm.now()
    found = next((one for one in farm.users.tokens(now) if one.id == token_id), None)
    if found is None:
        raise NotFoundError(
            f"There is no token {token_id[:80]!r} that is still good.",
            "`farm token list` shows those there are.",
        )
    ended = farm.accounts.end_tokens(found.id, now)
    return EndedView(name=found.name, sessions=ended.sessions, this_pc=ended.this_pc)
