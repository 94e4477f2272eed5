"""Loss functions: pure functions of predictions and targets."""
