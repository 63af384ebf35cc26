"""Every op in NumPy: readable, slow, and the definition that all backends must match bit for bit."""
