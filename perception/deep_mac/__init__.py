"""Instance masks for classes that never had one: Deep-MAC and Deep-MARC (arXiv 2104.00613)."""
