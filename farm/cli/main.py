"""The `farm` command: gathers the verbs, and says errors in one line and a remedy."""

import sys
from io import TextIOWrapper

import typer

from farm.cli import (
    backup,
    batch,
    bench,
    calibrate,
    demo,
    doctor,
    jobs,
    join,
    local,
    machines,
    models,
    plan,
    simulate,
    token,
    up,
    user,
)

app = typer.Typer(
    name="farm",
    help="Turns spare PCs with old, mismatched graphics cards into one farm that makes videos from pictures.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
for verb in (
    jobs.submit,
    jobs.jobs,
    jobs.show,
    jobs.cancel,
    jobs.retry,
    jobs.rate,
    machines.nodes,
    machines.cards,
    machines.drain,
    machines.resume,
    machines.forget,
):
    app.command(verb.__name__)(verb)
app.command("batch")(batch.batch)
app.command("plan")(plan.plan)
app.command("simulate")(simulate.simulate)
app.command("up")(up.up)
app.command("backup")(backup.backup)
app.command("restore")(backup.restore)
app.command("join")(join.join)
app.command("demo")(demo.demo)
app.command("bench")(bench.bench)
app.command("calibrate")(calibrate.calibrate)
app.add_typer(token.token, name="token")
app.add_typer(user.user, name="user")
app.add_typer(local.local, name="local")
app.add_typer(models.models, name="models")
app.command("leave")(local.leave)
app.command("doctor")(doctor.doctor)


def main() -> None:
    """Runs a verb. Exits 0 on success, 1 on a failed operation, 2 on bad arguments."""
    _without_httpx_own_command()
    if isinstance(sys.stdout, TextIOWrapper):
        # A file's name may be no UTF-8, and a prompt's letters not this terminal's: they are shown escaped, as on stderr.
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        app()
    except Exception as error:  # noqa: BLE001  # whatever it is, a person sees a sentence and the log has the trace
        sys.exit(_say(error))


def _without_httpx_own_command() -> None:
    """Keeps httpx from its own command line, which loads click, rich and pygments: a tenth of a second. It goes without them gladly."""
    sys.modules.setdefault("httpx._main", None)  # type: ignore[arg-type]  # None: "cannot be imported"


def _say(error: Exception) -> int:
    from farm.errors import BadInputError, BadSettingsError, FarmError

    if isinstance(error, FarmError):
        for one in error.errors if isinstance(error, BadSettingsError) else (error,):
            typer.echo(f"farm: {one.message}", err=True)
            if one.remedy:
                typer.echo(f"      {one.remedy}", err=True)
        return 2 if isinstance(error, BadInputError) else 1
    typer.echo(
        f"farm: something went wrong inside the farm's own code ({type(error).__name__}: {error}).", err=True
    )
    typer.echo(f"      {_logged(error)}", err=True)
    return 1


def _logged(error: Exception) -> str:
    """Writes the trace to a file; says where it is."""
    import traceback
    from datetime import UTC, datetime

    from farm.errors import FarmError

    text = f"{datetime.now(UTC):%Y-%m-%d %H:%M:%S} farm {' '.join(_hidden(sys.argv[1:]))}\n"
    text += "".join(traceback.format_exception(error))
    try:
        from farm.settings import DataDirectory, FarmSettings

        path = DataDirectory(FarmSettings().data).logs / "cli.log"
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("a", encoding="utf-8", errors="backslashreplace") as file:
            file.write(text)
    except (OSError, FarmError):
        return "The trace could not be written to a file. Please report it."
    return f"The trace is in {path}: please report it with that."


def _hidden(arguments: list[str]) -> list[str]:
    """The arguments without tokens."""
    found = list(arguments)
    for at, argument in enumerate(found):
        if argument.startswith("--token="):
            found[at] = "--token=..."
        elif argument == "--token" and at + 1 < len(found):
            found[at + 1] = "..."
    return found


if __name__ == "__main__":
    main()
