"""The ``.vqc`` file: bytes, and never what they mean (docs/FORMAT.md)."""
