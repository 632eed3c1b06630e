"""The platform on one machine: SQLite, subprocesses, HTTP on loopback, folders."""
