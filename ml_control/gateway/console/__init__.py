"""The console: one page for each pipeline, made on the server, with nothing from outside."""
