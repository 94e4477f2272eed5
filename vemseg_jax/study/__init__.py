"""The study: volumes x structures x label budgets x methods x seeds, and its report."""
