"""docs/recipes.md is what docs/make_recipes.py makes."""

import importlib.util
from pathlib import Path

SCRIPT = Path(__file__).parents[2] / "docs/make_recipes.py"
SPEC = importlib.util.spec_from_file_location("make_recipes", SCRIPT)
make_recipes = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(make_recipes)


def test_the_page_is_not_stale() -> None:
    assert make_recipes.PAGE.read_text() == make_recipes.page(), "run python docs/make_recipes.py"


def test_a_header_is_read_by_its_labels(tmp_path: Path) -> None:
    path = tmp_path / "one.yaml"
    path.write_text("# A model.\n# More.\n# Run:    run it\n# Result: 90%\n#         once\nmodel: {}\n# Result: 99%\n")
    assert make_recipes.header(path) == {"": "A model. More.", "Run": "run it", "Result": "90% once"}


def test_the_overview_has_the_first_sentence_and_the_result_without_its_details(tmp_path: Path) -> None:
    path = tmp_path / "one.yaml"
    path.write_text(
        "# A model, 90.5% elsewhere. More.\n# Run:    run it\n# Result: top-1 90.94% (91.21, 90.85), once.\n"
    )
    *_, row, end = make_recipes.overview([path]).split("\n")
    assert (row, end) == ("| [one](#one) | A model, 90.5% elsewhere | top-1 90.94% |", "")
