"""Is a volume fit to be trained on?"""
