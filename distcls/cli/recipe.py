"""`distcls recipe ...`: look at recipes before a GPU is touched."""

import json
from pathlib import Path
from typing import Annotated

import typer

from distcls.cli import recipe_runs
from distcls.recipe.errors import RecipeError
from distcls.recipe.source import read

app = typer.Typer(no_args_is_help=True, help="Check and show recipes; compare runs with measured ones.")
app.command()(recipe_runs.record)
app.command(name="check-run")(recipe_runs.check_run)
RecipePath = Annotated[Path, typer.Argument(metavar="RECIPE", help="YAML file of the recipe.")]
Overrides = Annotated[list[str] | None, typer.Argument(metavar="KEY=VALUE", help="Overrides, e.g. optimizer.lr=0.5")]


@app.command()
def check(recipe: RecipePath, overrides: Overrides = None) -> None:
    """Check a recipe and report every error with file:line:column."""
    from distcls.engine.checks.plugins import checked_recipe

    checked_recipe(recipe, overrides or [])
    print(f"{recipe}: ok")


@app.command()
def show(
    recipe: RecipePath,
    overrides: Overrides = None,
    origin: Annotated[bool, typer.Option("--origin", help="Show for each key the line that it comes from.")] = False,
    params: Annotated[
        bool, typer.Option("--params", help="Print the parameter groups of the optimizer instead.")
    ] = False,
) -> None:
    """Print the resolved recipe: bases merged, overrides applied, defaults filled in."""
    from distcls.engine.checks.plugins import checked_recipe
    from distcls.recipe.origin import with_origin
    from distcls.recipe.yaml12 import to_yaml

    checked, source, _ = checked_recipe(recipe, overrides or [])
    if params:
        from distcls.engine.plan.parameter_table import parameter_table

        print("\n".join(parameter_table(checked, source)))
        return
    text = to_yaml(checked.resolved())
    print(with_origin(text, source) if origin else text, end="")


@app.command(name="schema")
def write_schema(
    recipe: Annotated[Path | None, typer.Argument(metavar="RECIPE", help="Recipe whose plug-ins to include.")] = None,
    output: Annotated[Path | None, typer.Option("-o", "--output", help="File to write. Default: print it.")] = None,
) -> None:
    """Write a JSON schema with which editors complete and check recipes.

    VS Code's YAML extension uses it for recipes that begin with
    # yaml-language-server: $schema=recipe.schema.json
    """
    from distcls.engine.checks.plugins import import_parts
    from distcls.recipe.editor import json_schema

    source = None if recipe is None else read(recipe)
    import_parts(source)
    if source is not None and source.problems:
        raise RecipeError(source.recipe, source.problems)
    text = json.dumps(json_schema(), indent=2, ensure_ascii=False) + "\n"
    if output is None:
        print(text, end="")
    else:
        output.parent.mkdir(parents=True, exist_ok=True)
        output.write_text(text, encoding="utf-8")
