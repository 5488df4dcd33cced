"""Errors that a user can fix. Commands and the Snakefile print them as one line and exit with their code."""


class InputError(Exception):
    """An error in the input. The message gives what happened, the value, and what to do."""

    exit_code = 1


class TooManyFailed(InputError):
    """A complete run, of whose photos more failed than `max_failed_share` allows."""

    exit_code = 3
