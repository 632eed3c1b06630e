"""From admitted objects to published partitions: staged, audited, described."""
