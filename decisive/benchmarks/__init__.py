"""Definitions of the benchmark tables and the recipes behind their rows."""
