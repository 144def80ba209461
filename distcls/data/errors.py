"""What goes wrong with data: always a file, what was got, what was expected and what to do."""

from distcls.errors import UserError


class DataError(UserError):
    """A data set, or one sample of it, is not what it should be.

    One that reaches the end of a run comes from a batch, and each rank has its own; those found while files are opened
    become mistakes of the recipe.
    """

    on_one_rank = True
