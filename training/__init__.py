"""Training recipes for vqcodec models. Not part of the installed package."""
