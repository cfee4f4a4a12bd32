"""Many runs: in this process, in a pool of worker processes, or on Slurm."""
