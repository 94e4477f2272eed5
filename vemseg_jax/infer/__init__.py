"""From a trained network and a volume to a predicted label volume."""
