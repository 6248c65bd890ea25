"""The exceptions whose message is one line for the user."""


class InputError(ValueError):
    """A wrong argument, option, column or file.

    The message is one line that names what is wrong, what was expected and what came. Commands print
    it and exit with 2, without a traceback; any other exception is a fault of this package.
    """


class TrainingDivergedError(RuntimeError):
    """A loss was NaN or infinite. The message names stage, epoch, step and the last good checkpoint."""
