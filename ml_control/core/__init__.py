"""Pure decisions and records: no Dagster, no network, no file system."""
