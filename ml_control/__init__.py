"""ml-control: an event-driven ML control plane on Dagster."""

__version__ = "0.1.0"
