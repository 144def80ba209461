"""The one kind of exception that is meant for a person, and what knows its place in a recipe: a text, no traceback."""


class UserError(Exception):
    """Something a user can mend. The text says where, what was got, what was expected and what to do.

    Every layer may raise it or a subclass. `launch/train.py` and the `distcls` command print `error: <text>` and leave
    with status 1 (usage mistakes: 2); any other exception is a bug of ours and keeps its traceback.

    Attributes:
        on_one_rank: this rank alone has met it, so it must print it; what all ranks meet is printed once a node.
    """

    on_one_rank = False


class ArgumentError(UserError):
    """Something that a part of a recipe refuses. Parts do not know where a recipe names them; whoever has it does.

    Args:
        place: the part's class, or a key of the recipe, and the argument: ``LinearClsHead.topk``, ``data.mix``,
            ``LeNet5``.
        reason: what is wrong there, without the place.
    """

    def __init__(self, place: str, reason: str) -> None:
        super().__init__(f"{place}: {reason}")
        self.place = place
        self.reason = reason
