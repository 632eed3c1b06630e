"""What the assets, sensors and commands do, written once and without Dagster."""
