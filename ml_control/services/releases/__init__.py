"""From a proven model to the traffic that it earned, and back."""
