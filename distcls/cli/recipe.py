"""`distcls recipe ...`: look at recipes before a GPU is touched."""

import json
from pathlib import Path
from typing import Annotated

import typer

from distcls.cli import recipe_runs
from distcls.recipe.errors import RecipeError
from distcls.recipe.source import read

app = typer.Typer(no_args_is_help=True, help="Check recipes and their runs, and show what they say.")
app.command()(recipe_runs.record)
app.command(name="check-run")(recipe_runs.check_run)
RecipePath = Annotated[Path, typer.Argument(metavar="RECIPE", help="The recipe's YAML file.")]
Overrides = Annotated[
    list[str] | None, typer.Argument(metavar="KEY=VALUE", help="Changes, for example optimizer.lr=0.5")
]


@app.command()
def check(recipe: RecipePath, overrides: Overrides = None) -> None:
    """Report every mistake of a recipe, each at file:line:column."""
    from distcls.engine.checks.plugins import checked_recipe

    checked_recipe(recipe, overrides or [])
    print(f"{recipe}: ok")


@app.command()
def show(
    recipe: RecipePath,
    overrides: Overrides = None,
    origin: Annotated[bool, typer.Option("--origin", help="Say behind each key where it was written.")] = False,
    params: Annotated[bool, typer.Option("--params", help="Print its parameter groups instead.")] = False,
) -> None:
    """Print the recipe as it will run: bases merged, changes applied, defaults filled in."""
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
    recipe: Annotated[
        Path | None, typer.Argument(metavar="RECIPE", help="A recipe whose plug-ins the schema is to know.")
    ] = None,
    output: Annotated[
        Path | None, typer.Option("-o", "--output", help="The file to write; else it is printed.")
    ] = None,
) -> None:
    """Write the JSON schema that lets editors complete and check recipes.

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
