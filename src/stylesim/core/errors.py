"""The classes of errors whose messages are written for the user."""


class StylesimError(ValueError):
    """Something the user can fix: the message says what is wrong, what was expected, and what to do.

    Commands print it without a traceback and exit with status 2.
    """


class ConfigError(StylesimError):
    """A key, a value, a path or a combination of settings that cannot work."""


class WeightsError(StylesimError):
    """Weights that are missing, damaged, of another architecture, or not trained."""


class DataError(StylesimError):
    """A data set, table, index or descriptor set that is missing, inconsistent or empty."""


class CorruptSampleError(StylesimError):
    """One sample that cannot be read. The only error that a long run counts and skips."""
