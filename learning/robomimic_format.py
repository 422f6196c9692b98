"""robomimic-style HDF5 (placeholder)."""
