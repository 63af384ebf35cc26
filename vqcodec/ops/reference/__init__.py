"""Every op in NumPy: readable, slow, and the definition that all backends must equal bit for bit."""
