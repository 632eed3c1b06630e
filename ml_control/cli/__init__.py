"""``ml-control``: every command is a thin edge over the services."""

from ml_control.cli.main import main

__all__ = ["main"]
