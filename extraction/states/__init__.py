"""The states of every block along windows, and what the head says there."""
