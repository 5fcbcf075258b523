"""From models and text to states and behaviour."""
