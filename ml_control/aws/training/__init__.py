"""Jobs on SageMaker: claimed by name, waited for, read from their logs, taken into use."""
