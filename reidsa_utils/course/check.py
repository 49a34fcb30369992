"""All checks by name: check.NAME(attempt) prints a sentence about a reader's own attempt."""

from .checking import Exercise
from .forms import a_shift_of_the_map, one_of_768, the_released_layer
from .gap_vs_sa import more_heat_more_positions, softmax_over_positions, three_positions
from .gradient import competition_with_heat, jacobian_of_l1, negative_case_one
from .maps import a_map_by_hand, one_activation, what_a_map_leaves_out
from .network import rows_of_a_stripe, ten_losses, what_a_loss_sends_back
from .ranking import good_start, score_one_query, the_two_kinds
from .seeds import enough_seeds, holm_by_hand, weights_of_a_pool
from .steps import sgd_by_hand, the_blind_head, when_the_rate_drops

# In the order of the notebooks.
EXERCISES: tuple[Exercise, ...] = (
    three_positions,
    softmax_over_positions,
    more_heat_more_positions,
    negative_case_one,
    jacobian_of_l1,
    competition_with_heat,
    good_start,
    score_one_query,
    the_two_kinds,
    rows_of_a_stripe,
    ten_losses,
    what_a_loss_sends_back,
    when_the_rate_drops,
    sgd_by_hand,
    the_blind_head,
    enough_seeds,
    holm_by_hand,
    weights_of_a_pool,
    one_activation,
    a_map_by_hand,
    what_a_map_leaves_out,
    one_of_768,
    the_released_layer,
    a_shift_of_the_map,
)
