"""What is, what was, why, and what might have been: read-only answers as plain data."""
