"""Results of runs: the record that a run writes, and tables and figures over many of them."""
