"""Writes what `benchmarks.render` measured into docs/benchmarks.md: `python -m benchmarks.render_table COMMIT DATE FILE...`.

Apart from it, since a GPU's PC and the one with the repository are rarely the same.
"""

import json
import sys
from pathlib import Path
from typing import Any

from benchmarks.record import record
from benchmarks.render_jobs import MORE

Row = dict[str, Any]


def table(rows: list[Row]) -> str:
    """The tables of one or more runs; a run's rows that failed stand as what they said. The reference is the first run's."""
    whole: dict[str, Row] = {}
    for row in rows:
        if row["kind"] == "resident":
            whole.setdefault(row["job"], row)
    text = [
        "## Renders under the memory of small cards",
        "",
        "Whole pipelines with full-size random weights through the farm's own models (`benchmarks/render.py`), from the prompt to the "
        "last frame. A card is emulated by a cap on what the allocator may reserve. Ratio: seconds per step over the same job with "
        "everything on the card in the same run. Difference: the largest of any pixel of any frame, of 255.",
        "",
        "| card emulated | job | cap GiB | must | ratio | peak GiB, predicted | measured | s per step, predicted | measured | difference "
        "| plan |",
        "|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        if row["kind"] != "planned" or "step_s" not in row or row["card"] == MORE:
            continue
        ratio = f"{row['ratio']:.2f}" if row.get("ratio") is not None else "-"
        verdict = "-" if row["must"] is None else f"{row['must']:.2f}"
        difference = "-" if row["largest_difference"] is None else str(row["largest_difference"])
        text.append(
            f"| {row['card']} | {row['job']} | {row['cap']} | {verdict} | {ratio} | {row['predicted_gib']:.2f} | "
            f"{row['reserved_gib']:.2f} | {row['predicted_s']:.3f} | {row['step_s']:.3f} | {difference} | {row['plan']} |"
        )
    text += [
        "",
        "Everything on the card, the reference:",
        "",
        "| job | reserved GiB | s per step |",
        "|---|---|---|",
    ]
    text += [f"| {job} | {row['reserved_gib']:.2f} | {row['step_s']:.3f} |" for job, row in whole.items()]
    text += _more([row for row in rows if row.get("card") == MORE and "step_s" in row])
    text += _learned([row for row in rows if row["kind"] == "learned"])
    text += [
        "", "A bus slowed down to 3 and 6 GB/s by making each copy several times; the planner plans for that bus:", "",
        "| job | cap GiB | bus GB/s | s per step, predicted | measured | plan |", "|---|---|---|---|---|---|",
    ]  # fmt: skip
    text += [
        f"| {row['job']} | {row['cap']} | {row['bus_gb_s']:.0f} | {row['predicted_s']:.3f} | {row['step_s']:.3f} | {row['plan']} |"
        for row in rows
        if row["kind"] == "slow" and "step_s" in row
    ]
    text += [
        "", "The stock pipeline at 512x512x16 with diffusers' own ways to save memory:", "",
        "| way | cap GiB | reserved GiB | s per step |", "|---|---|---|---|",
    ]  # fmt: skip
    for row in rows:
        if row["kind"] == "stock":
            cap = "-" if row["cap"] is None else row["cap"]
            said = (
                f"{row['reserved_gib']:.2f} | {row['step_s']:.3f}"
                if "step_s" in row
                else f"{row['error']} | -"
            )
            text.append(f"| `{row['strategy']}` | {cap} | {said} |")
    return "\n".join(text)


def _more(rows: list[Row]) -> list[str]:
    """The peaks of `MORE_SIZES`, in a run of their own (`--only sizes`)."""
    if not rows:
        return []
    shares = [row["predicted_gib"] / row["reserved_gib"] for row in rows]
    return [
        "",
        f"{len(rows)} more sizes beside those that `farm calibrate` measures (`--only sizes`); the predicted peak is {min(shares):.3f} to "
        f"{max(shares):.3f} of the measured one (must 0.95 to 1.05):",
        "",
        "| job | cap GiB | peak GiB, predicted | measured | of it | plan |",
        "|---|---|---|---|---|---|",
        *(
            f"| {row['job']} | {row['cap']} | {row['predicted_gib']:.2f} | {row['reserved_gib']:.2f} | {share:.3f} | {row['plan']} |"
            for row, share in zip(rows, shares, strict=True)
        ),
    ]


def _learned(rows: list[Row]) -> list[str]:
    """What three renders of one size foretold of others (`--only learned`)."""
    told = [row for row in rows if not row["teaches"]]
    if not told:
        return []
    return [
        "",
        "What three renders of one size teach of others, whole renders under 5.4 GiB from the loaded model to the last frame "
        "(`--only learned`; must be within 15 %):",
        "",
        "| job | steps | s, by the catalogue | after three renders of another size | it took | off |",
        "|---|---|---|---|---|---|",
        *(
            f"| {row['job']} | {row['steps']} | {row['catalogue_s']:.1f} | {row['foretold_s']:.1f} | {row['took_s']:.1f} | "
            f"{row['foretold_s'] / row['took_s'] - 1:+.0%} |"
            for row in told
        ),
    ]


def main() -> None:
    """Reads the runs' files and writes the page."""
    commit, date, *files = sys.argv[1:]
    runs = [json.loads(Path(file).read_text()) for file in files]
    rows = [row for run in runs for row in run["rows"] if "job" in row or row["kind"] == "stock"]
    facts = runs[0]
    where = f"*{date}, commit {commit}, {facts['card']}, torch {facts['torch']}, bus {facts['bus_gb_s']:.0f} GB/s, {facts['steps']} steps.*"
    note = Path(__file__).with_name("render_note.md")
    text = table(rows) + ("\n\n" + note.read_text().strip() if note.exists() else "")
    record("render", text, where=where)


if __name__ == "__main__":
    main()
