"""From results to MLflow, reports and comparisons."""
