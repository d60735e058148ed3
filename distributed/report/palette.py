"""Colours and marks of every figure."""

#: Okabe and Ito's, distinguishable with every kind of colour vision, then one of Tol's and one of
#: IBM's, for studies of more than six models; marks differ in shape as well.
PALETTE = (
    *("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9"),
    *("#999933", "#785EF0"),
)
MARKERS = ("o", "s", "D", "^", "v", "P", "X", "p")
QUIET = "#9aa3ad"
WARNING = "#a8480a"


def colour(place: int) -> str:
    """Of the model, group or seed at this place."""
    return PALETTE[place % len(PALETTE)]


def mark(place: int) -> str:
    """Matplotlib's name of it."""
    return MARKERS[place % len(MARKERS)]
