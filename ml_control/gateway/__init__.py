"""The gateway: one address for inference, outcomes, reading and a person's decisions."""
