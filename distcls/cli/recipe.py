"""`distcls recipe ...`: look at recipes before a GPU is touched."""

import json
from pathlib import Path
from typing import Annotated

import typer

from distcls.cli import recipe_runs
from distcls.recipe.errors import RecipeError
from distcls.recipe.source import Source, read

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
    from distcls.recipe import schema

    schema.check(_source(recipe, overrides))
    print(f"{recipe}: ok")


@app.command()
def show(
    recipe: RecipePath,
    overrides: Overrides = None,
    origin: Annotated[bool, typer.Option("--origin", help="Say behind each key where it was written.")] = False,
    params: Annotated[bool, typer.Option("--params", help="Print its parameter groups instead.")] = False,
) -> None:
    """Print the recipe as it will run: bases merged, changes applied, defaults filled in."""
    from distcls.recipe import schema
    from distcls.recipe.origin import with_origin
    from distcls.recipe.yaml12 import to_yaml

    source = _source(recipe, overrides)
    checked = schema.check(source)
    if params:
        from distcls.engine.parameter_table import parameter_table

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
    from distcls.engine.plugins import import_parts
    from distcls.recipe.schema import json_schema

    import_parts()
    if recipe is not None and (problems := _source(recipe, []).problems):
        raise RecipeError(str(recipe), problems)
    text = json.dumps(json_schema(), indent=2, ensure_ascii=False) + "\n"
    if output is None:
        print(text, end="")
    else:
        output.parent.mkdir(parents=True, exist_ok=True)
        output.write_text(text, encoding="utf-8")


def _source(recipe: Path, overrides: list[str] | None) -> Source:
    """Read the recipe, and register the classes that it can name."""
    source = read(recipe, overrides or [])  # a file that cannot be read is told at once: what follows imports torch
    from distcls.engine.plugins import import_parts

    import_parts(source)
    return source
