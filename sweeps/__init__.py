"""Many runs: in this process, in a pool of worker processes, or on Slurm."""

from .estimate import Estimate
from .events import Events, Outcome
from .pool import run_pool
from .serial import run_serial
from .slurm import run_slurm

__all__ = ["Estimate", "Events", "Outcome", "run_pool", "run_serial", "run_slurm"]
