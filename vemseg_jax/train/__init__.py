"""Training state, schedules, steps and the loop around them."""
