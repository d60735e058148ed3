"""Exceptions that the command line turns into a one-line message and exit code 2."""


class UserError(Exception):
    """Something the user can mend: names the file, row or key, and says what to do."""


class StorageError(UserError):
    """Prepared data that cannot be read, now or any more; no fault of what they are read for."""
