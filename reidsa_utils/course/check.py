"""All checks by name: check.NAME(attempt) prints a sentence about a reader's own attempt."""

from .checking import Exercise
from .gap_vs_sa import more_heat_more_positions, softmax_over_positions, three_positions

# In the order of the notebooks.
EXERCISES: tuple[Exercise, ...] = (
    three_positions,
    softmax_over_positions,
    more_heat_more_positions,
)
