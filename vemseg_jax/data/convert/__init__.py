"""From images and label files to a volume."""
