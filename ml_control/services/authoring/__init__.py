"""From a sample to a pipeline file, and from files to pipelines."""
