"""Explicit policies: networks that output the action, or its distribution, directly."""
