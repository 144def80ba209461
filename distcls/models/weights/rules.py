"""Rules that convert another library's weights: patterns applied to names in order, and changes to tensors."""

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor

Replacement = str | Callable[[re.Match[str]], str]
Rule = tuple[str, Replacement]
#: (names in the file, backbone) -> rules, where they depend on the names.
Rules = Callable[[Iterable[str], Any], list[Rule]]


@dataclass(frozen=True)
class Family:
    """How another library stores one of our backbones.

    Attributes:
        rules: each is applied to every name, in this order; or a function that makes them from all names.
        change: (new name, tensor) -> tensor, where more than the name differs.
    """

    rules: tuple[Rule, ...] | Rules
    change: Callable[[str, Tensor], Tensor] = lambda name, entry: entry

    def rename(self, tensors: Mapping[str, Tensor], backbone: Any) -> dict[str, "Renamed"]:
        """New name -> entry. Names that no rule moves to the head belong to the backbone."""
        rules = self.rules(tensors, backbone) if callable(self.rules) else self.rules
        compiled = [(re.compile(pattern), replacement) for pattern, replacement in rules]
        renamed = {}
        for old, entry in tensors.items():
            new = old
            for pattern, replacement in compiled:
                new = pattern.sub(replacement, new)
            new = new if new.startswith("head.") else f"backbone.{new}"
            renamed[new] = Renamed(old, self.change(new, entry))
        return renamed


@dataclass(frozen=True)
class Renamed:
    """An entry with the name that it has in the file."""

    old: str
    entry: Tensor


def less_one(number: str) -> int:
    """Other libraries' count from 1 -> ours from 0."""
    return int(number) - 1


def family_of(backbone: Any, table: Mapping[str, Family]) -> Family | None:
    """The entry for the backbone's class, or for the nearest of its bases that has one."""
    return next((table[cls.__name__] for cls in type(backbone).__mro__ if cls.__name__ in table), None)


#: torchvision's and timm's DenseNets have one layout.
DENSENET = Family(
    (
        (r"^classifier\.", "head.fc."),
        (r"^features\.conv0\.", "stem.0."),
        (r"^features\.norm0\.", "stem.1."),
        (
            r"^features\.denseblock(\d+)\.denselayer(\d+)\.",
            lambda m: f"stages.{less_one(m[1])}.block.{less_one(m[2])}.",
        ),
        (r"^features\.transition(\d+)\.", lambda m: f"transitions.{less_one(m[1])}."),
        (r"^features\.norm5\.", "transitions.3.0."),
    )
)


def vgg_features(names: Iterable[str], backbone: Any) -> list[Rule]:
    """Match the n-th convolutions: in torchvision and timm, convolution and norm are separate layers of `features`."""
    theirs = _convolutions(r"features\.(\d+)\.weight", [n for n in names if _is_convolution(n, names)])
    ours = _convolutions(r"features\.(\d+)\.conv\.weight", backbone.state_dict())
    index = dict(zip(theirs, ours, strict=False))

    def moved(match: re.Match[str]) -> str:
        number = int(match[1])
        if number in index:
            return f"features.{index[number]}.conv."
        return f"features.{index.get(number - 1, -1)}.bn."

    return [(r"^features\.(\d+)\.", moved)]


def _convolutions(pattern: str, names: Iterable[str]) -> list[int]:
    return sorted(int(match[1]) for name in names if (match := re.fullmatch(pattern, name)))


def _is_convolution(name: str, names: Iterable[str]) -> bool:
    """A norm has running averages, a convolution none."""
    return name.replace(".weight", ".running_mean") not in names


def merged_patches(new: str, entry: Tensor) -> Tensor:
    """Reorder the weights of Swin's patch merging.

    Theirs go position by position, in the order (0, 0), (1, 0), (0, 1), (1, 1); ours channel by channel, as in torch's
    unfold, with positions row by row.
    """
    if ".downsample." not in new:
        return entry
    width = entry.shape[-1] // 4
    return entry.unflatten(-1, (4, width))[..., [0, 2, 1, 3], :].transpose(-1, -2).flatten(-2)
