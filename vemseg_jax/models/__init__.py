"""Networks as Flax Linen modules, behind `registry.create_model`."""
