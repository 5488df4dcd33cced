"""What a user can mend: scripts and the Snakefile show it as one line and exit with 1."""


class InputError(Exception):
    """A mistake in the input: what was wrong, its value, what was expected, the way out."""
