"""What is predicted beside the gateway, and what is kept of predictions and outcomes."""
