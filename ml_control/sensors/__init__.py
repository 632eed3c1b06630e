"""What starts runs: arrivals, and retraining."""
