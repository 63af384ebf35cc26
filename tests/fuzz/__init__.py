"""Hostile input (docs/FUZZING.md): targets in C++ (``*.cpp``) and Python (``targets``), corpora, ``run``."""
