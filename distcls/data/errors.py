"""What goes wrong with data: always a file, what was got, what was expected and what to do."""

from distcls.errors import UserError


class DataError(UserError):
    """A data set, or one sample of it, is not what it should be."""
