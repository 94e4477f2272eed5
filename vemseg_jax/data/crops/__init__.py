"""From volumes to batches of crops."""
