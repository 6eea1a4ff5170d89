"""Okabe and Ito's palette, told apart by every kind of colour vision."""

BLUE, ORANGE, GREEN, RED, GREY = "#0072B2", "#E69F00", "#009E73", "#D55E00", "#6E6E6E"
GRID = "#E5E5E5"
