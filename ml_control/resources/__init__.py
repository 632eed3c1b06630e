"""The platform as Dagster sees it."""

from ml_control.resources.platform import RESOURCE_KEY, PlatformResource

__all__ = ["RESOURCE_KEY", "PlatformResource"]
