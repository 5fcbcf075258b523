"""Open language models: loaded, placed, their blocks found, their random twins made."""
