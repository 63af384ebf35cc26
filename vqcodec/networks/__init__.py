"""The float networks between pixels and code maps, in PyTorch: nothing else of the codec imports it."""
