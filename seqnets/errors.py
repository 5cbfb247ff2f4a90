"""The errors users meet by name; each message says what was wrong, why, and the way out."""


class SeqnetsError(Exception):
    """Base of the errors that are this library's own."""


class BackendError(SeqnetsError, RuntimeError):
    """A backend that was asked for by name cannot serve the call."""


class CellError(SeqnetsError, ValueError):
    """A cell's definition is not usable."""


class ConfigError(SeqnetsError, ValueError):
    """A configuration names something that does not exist or cannot work."""


class DataError(SeqnetsError, RuntimeError):
    """A data set is missing, incomplete or not what it should be."""


class CheckpointError(SeqnetsError, RuntimeError):
    """A checkpoint cannot be read or written."""


class DivergenceError(SeqnetsError, ArithmeticError):
    """A loss or a weight is NaN or infinite."""


class RunFolderError(SeqnetsError, RuntimeError):
    """The run folder already holds a run."""
