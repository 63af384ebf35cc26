"""What a model is: descriptions, number formats, integer tensors, model files. NumPy, no PyTorch."""
