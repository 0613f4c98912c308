"""Places where a run's values are logged, beside TensorBoard. Their libraries are imported when a run starts."""
