"""From bits and behaviour to an estimate of another model; the command line."""
