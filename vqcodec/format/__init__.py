"""The ``.vqc`` file: its bytes, but not what the code maps mean (docs/FORMAT.md)."""
