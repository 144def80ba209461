"""Errors of data sets; each names the file, what was got, what was expected and what to do."""

from distcls.errors import UserError


class DataError(UserError):
    """A data set, or one of its samples, is not as it should be.

    While files are opened such an error becomes a mistake of the recipe. One that ends a run comes from a batch, which
    only one rank has read.
    """

    on_one_rank = True
