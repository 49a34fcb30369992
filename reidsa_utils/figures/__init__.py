"""What the notebooks show: every function takes numbers that are computed, and draws them."""
