"""What a model consists of: configurations, number formats, integer tensors, model files. NumPy, no PyTorch."""
