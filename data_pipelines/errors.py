"""Exceptions that the command line turns into a one-line message and exit code 2."""


class UserError(Exception):
    """A mistake that the user can correct: names the file, row or key, and says what to do."""


class StorageError(UserError):
    """Prepared data that cannot be read; the trial that reads them is not at fault."""
