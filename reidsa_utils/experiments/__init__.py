"""Runs and what is made from them: records, statistics, tables, figures, claims."""
