"""The exercises of the notebooks: a check of a reader's own code for each.

`from reidsa_utils.course import check`, then `check.softmax_over_positions(my_attention)` prints
one sentence: "right: ...", "look again: ..." with what is wrong, or "not yet: ..." for a starter
that is not filled in. A check never raises, so a notebook with empty starters runs to its end.
"""
