"""Short DAGs that show what Cortex changes: a connection id, and nothing else."""
