"""The one exception that is meant for the user's eyes."""


class StylesimError(ValueError):
    """Something the user can mend: the message says what is wrong, where, and what to do.

    Entry points print it as one sentence, without a traceback, and exit with status 2.
    """
