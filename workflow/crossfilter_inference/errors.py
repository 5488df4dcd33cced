"""Errors that a user can fix. Commands and the Snakefile print them as one line and exit with code 1."""


class InputError(Exception):
    """An error in the input. The message gives what happened, the value, and what to do."""
