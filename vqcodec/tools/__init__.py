"""Tools around the codec: files and processes, the demo, comparisons and benchmarks."""
