"""The one kind of exception that is meant for a person: commands print its text and no traceback."""


class UserError(Exception):
    """Something a user can mend. The text says where, what was got, what was expected and what to do.

    Every layer may raise it or a subclass. `launch/train.py` and the `distcls` command print `error: <text>` and leave
    with status 1 (usage mistakes: 2); any other exception is a bug of ours and keeps its traceback.

    Attributes:
        on_one_rank: this rank alone has met it, so it must print it; what all ranks meet is printed once a node.
    """

    on_one_rank = False
