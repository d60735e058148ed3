"""The one exception that the command line turns into a one-line message and exit code 2."""


class UserError(Exception):
    """Something the user can mend: names the file, row or key, and says what to do."""
