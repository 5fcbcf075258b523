"""The entities of the paper's three list corpora, chosen among words that GPT-2 holds as single tokens."""

COUNTRIES: tuple[str, ...] = (
    "Germany",
    "France",
    "Japan",
    "China",
    "India",
    "Russia",
    "Italy",
    "Spain",
    "Canada",
    "Mexico",
    "Brazil",
    "England",
    "Australia",
    "Egypt",
    "Israel",
    "Iran",
    "Iraq",
    "Turkey",
    "Greece",
    "Poland",
    "Sweden",
    "Norway",
    "Ireland",
    "Scotland",
    "Pakistan",
)
"""25 countries."""

ANIMALS: tuple[str, ...] = (
    "dog",
    "cat",
    "horse",
    "cow",
    "pig",
    "sheep",
    "bear",
    "wolf",
    "fox",
    "lion",
    "tiger",
    "rabbit",
    "mouse",
    "bird",
    "fish",
    "snake",
)
"""16 animals."""

COLORS: tuple[str, ...] = (
    "red",
    "blue",
    "green",
    "yellow",
    "black",
    "white",
    "brown",
    "orange",
    "purple",
    "pink",
    "gray",
    "silver",
    "gold",
    "olive",
    "navy",
)
"""15 colors."""

CATEGORIES: dict[str, tuple[str, ...]] = {"country": COUNTRIES, "animal": ANIMALS, "color": COLORS}
"""Entities by the name of their corpus."""

SHOWN: dict[str, int] = {"country": 4, "animal": 5, "color": 5}
"""Entities of a window in arXiv 2405.12617."""
