"""What the numbers and names in every table mean: the default resolution, and the marks of controls."""

from __future__ import annotations

DEFAULT_RESOLUTIONS: tuple[float, ...] = (0.06, 0.09, 0.12, 0.18, 0.25, 0.35, 0.5)
DEFAULT_RESOLUTION: float = 0.18  # at which models are compared; docs/resolution.md says why
TWIN = "~random"  # ends the name of a model's random-weights twin
SINK = "sink"  # flags a row computed from states at attention sinks, which say little of their token
NO_OVERFLOW = "load the model as bfloat16 or float32, which do not overflow as float16 does"  # what to do then
SHUFFLED = ", shuffled"  # ends the name of a corpus whose tokens were shuffled over its windows
