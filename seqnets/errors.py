"""Defines the errors that users meet by name. Each message says what was wrong, why, and what to do about it."""


class SeqnetsError(Exception):
    """Serves as the base class of all errors that this library defines."""


class BackendError(SeqnetsError, RuntimeError):
    """Raised when a backend that was requested by name cannot serve the call, or does not exist."""


class CellError(SeqnetsError, ValueError):
    """Raised when the definition of a cell is not usable."""


class ConfigError(SeqnetsError, ValueError):
    """Raised when a configuration names something that does not exist or cannot work."""


class DataError(SeqnetsError, RuntimeError):
    """Raised when a data set is missing, incomplete or not what it should be."""


class CheckpointError(SeqnetsError, RuntimeError):
    """Raised when a checkpoint cannot be read or written."""


class DivergenceError(SeqnetsError, ArithmeticError):
    """Raised when a loss or a weight is NaN or infinite."""


class RunFolderError(SeqnetsError, RuntimeError):
    """Raised when the run folder already holds a run."""
