"""Predictors of what a sensor will see next."""
