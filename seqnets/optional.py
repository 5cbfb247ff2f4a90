"""Imports packages that only some experiments need."""

from importlib import import_module
from typing import Any

from seqnets.errors import ConfigError


def needed(package: str, purpose: str) -> Any:
    """Import a package and return it.

    Args:
        package: the name of the module to import.
        purpose: what needs it, for the error message.

    Raises:
        ConfigError: If it cannot be imported. The message says how to install it.
    """
    try:
        return import_module(package)
    except ImportError as error:
        raise ConfigError(
            f"{purpose} needs the package {package.split('.')[0]}, "
            f'which cannot be imported ({error}): pip install -e ".[experiments]"'
        ) from error
