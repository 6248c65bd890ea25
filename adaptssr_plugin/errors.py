"""The one exception for calls that the caller can put right."""


class InputError(ValueError):
    """A wrong argument, option, column or file.

    The message is one line that names what is wrong, what was expected and what came. Commands print
    it and exit with 2, without a traceback; any other exception is a fault of this package.
    """
