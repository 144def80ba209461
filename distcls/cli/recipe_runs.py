"""`distcls recipe record` and `check-run`: what a recipe reached, and whether a run is on that course."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from distcls.errors import UserError

if TYPE_CHECKING:
    from distcls.engine.records.measured_runs import Band

RESULTS = Path("recipes/results")


def record(
    runs: Annotated[
        list[Path], typer.Argument(metavar="RUN...", help="Finished runs of one recipe with different seeds.")
    ],
    output: Annotated[
        Path | None, typer.Option("-o", "--output", help="File to write. Default: recipes/results/NAME.json.")
    ] = None,
) -> None:
    """Record the results of finished runs, with which check-run compares other runs."""
    from distcls.engine.checks.plugins import import_parts
    from distcls.engine.records.measured_runs import MeasuredRuns

    import_parts()
    measured = MeasuredRuns.of(runs)
    path = output or RESULTS / f"{measured.name}.json"
    measured.write(path)
    number = len(measured.runs)
    print(f"{path}: {number} run{'s' if number > 1 else ''} of {measured.name}")
    if number == 1:
        print("note: check-run needs two or more, of different seeds: a single one does not say how much runs scatter")


def check_run(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="Run folder; the run may still be training.")],
    against: Annotated[Path | None, typer.Option(help="Recorded results. Default: recipes/results/NAME.json.")] = None,
) -> None:
    """Compare each evaluation of a run with the band of recorded runs of its recipe.

    Exit status 1 if an evaluation is outside the band, the run is of another recipe, or nothing is recorded for it.
    """
    from distcls.engine.checks.plugins import import_parts
    from distcls.engine.records.measured_runs import MeasuredRuns, read_curves, read_record

    import_parts()
    found = read_record(run)
    name = found["recipe"]["name"]
    measured = MeasuredRuns.read(against or RESULTS / f"{name}.json")
    measured.refuse_another_recipe(run, found["recipe"])
    bands, curves = measured.bands(), read_curves(run)
    reached = max((curve[-1][0] for curve in curves.values()), default=0.0)

    seeds = ", ".join(str(one.seed) for one in measured.runs)
    print(f"{run}: {found['status']}, evaluated up to epoch {reached:g}; measured: {measured.name}, seeds {seeds}")
    for key in sorted(set(measured.fingerprints) & set(found["fingerprints"])):
        if measured.fingerprints[key] != found["fingerprints"][key]:
            print(f"note: {key} is not the file that was measured with")
    left, compared = [], 0
    for band in bands:
        value = dict(curves.get(band.metric, ())).get(band.epoch)
        words = "not yet" if value is None else _verdict(value, band)
        got = "" if value is None else f" {value:.4f},"
        expected = f"measured {band.mean:.4f}, band {band.low:.4f} to {band.high:.4f}"
        print(f"{band.metric} at epoch {band.epoch:g}:{got} {words} ({expected})")
        compared += value is not None
        left += [f"{words} the band of {band.metric} at epoch {band.epoch:g}"] if words in ("below", "above") else []
    if left:
        raise UserError(f"off course: {left[0]}" + (f", and {len(left) - 1} more" if left[1:] else "") + _hint(left[0]))
    if compared:
        print(f"on course: {compared} of {len(bands)} points compared, all within their bands")
    elif found["status"] == "finished":
        epochs = ", ".join(dict.fromkeys(f"{band.epoch:g}" for band in bands))
        raise UserError(
            f"{run} was not evaluated at any epoch that was measured, which are {epochs}: "
            "set eval.every_epochs to match"
        )
    else:
        print(f"too young: the first point to compare is at epoch {bands[0].epoch:g}")


def _verdict(value: float, band: "Band") -> str:
    return "below" if value < band.low else "above" if value > band.high else "within"


def _hint(first: str) -> str:
    if first.startswith("above"):
        return ". Are images to evaluate on among those to train on?"
    return ". Look at the data, `distcls data browse`, and at the versions in run.json"
