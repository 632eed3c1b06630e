"""The five assets of a pipeline."""
