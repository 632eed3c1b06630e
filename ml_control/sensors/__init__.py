"""What starts runs: arrivals, retraining, and rollouts."""
