"""The figures of the notebooks: every function takes computed numbers and draws them."""
