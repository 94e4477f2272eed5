"""Looking at volumes in a browser. Needs the extra `view`; nothing else in the package does."""
