"""Runs and what is made of them: records, statistics, tables, figures, claims."""
