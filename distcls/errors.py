"""The exceptions that are meant for users: their text is printed without a traceback."""


class UserError(Exception):
    """An error that the user can fix. Its text says where it is, what was got, what was expected and what to do.

    Every layer may raise it or a subclass. `launch/train.py` and the `distcls` command print `error: <text>` and exit
    with status 1 (usage mistakes: 2); any other exception is a bug of ours and keeps its traceback.

    Attributes:
        on_one_rank: only this rank has the error, so it must print it; an error of all ranks is printed once per node.
    """

    on_one_rank = False


class ArgumentError(UserError):
    """An argument that a part refuses. Parts do not know their place in a recipe; engine/checks/located.py finds it.

    Args:
        place: the class of the part, or a key of the recipe, with the argument: ``LinearClsHead.topk``, ``data.mix``,
            ``LeNet5``.
        reason: what is wrong, without the place.
    """

    def __init__(self, place: str, reason: str) -> None:
        super().__init__(f"{place}: {reason}")
        self.place = place
        self.reason = reason


def first_line(error: object) -> str:
    """The first line of an exception's text, or its type if it has no text."""
    return (str(error) or type(error).__name__).splitlines()[0]
