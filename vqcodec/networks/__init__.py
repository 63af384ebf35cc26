"""Float networks in PyTorch: the classifier that chooses among samples. Nothing else of the codec imports it."""
