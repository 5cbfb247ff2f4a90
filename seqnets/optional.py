"""Packages that single experiments need."""

from importlib import import_module
from typing import Any

from seqnets.errors import ConfigError


def needed(package: str, purpose: str) -> Any:
    """The package, imported.

    Raises:
        ConfigError: it cannot be; the message says how to install it.
    """
    try:
        return import_module(package)
    except ImportError as error:
        raise ConfigError(
            f'{purpose} needs the package {package.split(".")[0]}, which cannot be imported ({error}): pip install -e ".[experiments]"'
        ) from error
