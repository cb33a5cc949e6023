"""The methods: one paper, one file, the model with its paper's objective beside it."""
