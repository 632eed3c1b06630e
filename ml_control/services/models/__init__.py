"""From published partitions to a proven model, or a refusal with its evidence."""
