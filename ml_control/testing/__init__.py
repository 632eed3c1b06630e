"""Public test doubles and sample data for ml-control and for projects that use it."""
