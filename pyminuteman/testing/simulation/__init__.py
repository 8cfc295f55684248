"""A whole cluster in one process: seeded, on a virtual clock, with faults as options and stories for people to read.

>>> from pyminuteman.testing.simulation import Faults, Simulation
>>> world = Simulation(seed=7, nodes=10, faults=Faults(loss=0.05))
>>> world.run(seconds=5.0)
>>> world.partition(world.hosts[:5], world.hosts[5:])
>>> world.run(seconds=5.0)
>>> world.heal()

The same seed and arguments are the same run, in every process. See ``docs/simulation.md``.
"""

from __future__ import annotations

from pyminuteman.testing.simulation.bounds import Bounds as Bounds
from pyminuteman.testing.simulation.faults import CLEAN as CLEAN
from pyminuteman.testing.simulation.faults import Faults as Faults
from pyminuteman.testing.simulation.process import Host as Host
from pyminuteman.testing.simulation.process import Process as Process
from pyminuteman.testing.simulation.story import Story as Story
from pyminuteman.testing.simulation.world import Simulation as Simulation
from pyminuteman.testing.simulation.world import SimulationFailed as SimulationFailed

__all__ = ["CLEAN", "Bounds", "Faults", "Host", "Process", "Simulation", "SimulationFailed", "Story"]
