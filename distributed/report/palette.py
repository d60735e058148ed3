"""Colours and marks of every figure."""

#: Okabe and Ito's, told apart by every kind of colour vision; marks differ in shape as well.
PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
MARKERS = ("o", "s", "D", "^", "v", "P")
QUIET = "#9aa3ad"
