"""Memory plans in a person's words. Pure."""

from farm.model import MemoryPlan


def how(plan: MemoryPlan) -> str:
    """A memory plan in a person's words."""
    said = ["all weights stay" if plan.parts == "resident" else "parts by turns"]
    if plan.weights_on_card < 1:
        said = [f"{plan.weights_on_card:.0%} of the weights stay, the rest streams".replace("%", " %")]
    if plan.piece_mib:
        said.append("large layers in pieces")
    if plan.guidance == "in_turn":
        said.append("guidance in turn")
    if plan.decode == "tiles":
        said.append("pictures decoded in tiles")
    if plan.precision == "fp32":
        said.append("in single precision")
    return ", ".join(said)
