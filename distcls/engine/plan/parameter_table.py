"""`distcls recipe show --params`: learning rate, weight decay and members of each parameter group."""

from collections.abc import Sequence

from distcls.engine.building.model import build_model
from distcls.engine.checks.located import located
from distcls.recipe.schema import Recipe
from distcls.recipe.source import Source
from distcls.registry import OPTIMIZERS

COLUMNS = "{:>10}  {:>12}  {:>10}  {:>12}  {}"


def parameter_table(recipe: Recipe, source: Source) -> list[str]:
    """A heading, a line for each parameter group of the recipe's optimizer, and one for frozen parameters, if any.

    Raises:
        UserError: a part refuses its arguments.
    """
    with located(source):
        model, _ = build_model(recipe, source, resuming=True)  # skips loading weights: only names and sizes count
        optimizer = OPTIMIZERS.build(recipe.optimizer, model=model)
    sizes = {name: parameter.numel() for name, parameter in model.named_parameters()}
    lines = [COLUMNS.format("lr", "weight_decay", "tensors", "parameters", "names")]
    for group in optimizer.param_groups:
        lines.append(_line(f"{group['lr']:.4g}", f"{group.get('weight_decay', 0):.4g}", group["names"], sizes))
    frozen = [name for name, parameter in model.named_parameters() if not parameter.requires_grad]
    return [*lines, _line("frozen", "", frozen, sizes)] if frozen else lines


def _line(rate: str, decay: str, names: Sequence[str], sizes: dict[str, int]) -> str:
    count = sum(sizes[name] for name in names)
    ends = names if len(names) < 3 else [names[0], "...", names[-1]]
    return COLUMNS.format(rate, decay, len(names), f"{count:,}", " ".join(ends))
