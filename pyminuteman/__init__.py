"""Load balancing without a load balancer.

The layers, each useful without those above it:

- :mod:`pyminuteman.addresses`, :mod:`pyminuteman.errors`: what all others speak in.
- :mod:`pyminuteman.ipvs`: the kernel's IPVS table, from what is desired to what is.
- :mod:`pyminuteman.membership`: who of a cluster is alive. Import it by its name: it brings trio and cryptography with it.
- :mod:`pyminuteman.cli`: the command ``minuteman``.
- :mod:`pyminuteman.testing`: doubles and a real kernel for your own tests; nothing above imports it.

The names of daily use are here; the others are in the layers.
"""

from pyminuteman.errors import ConfigurationError as ConfigurationError
from pyminuteman.errors import MinutemanError as MinutemanError
from pyminuteman.ipvs import Destination as Destination
from pyminuteman.ipvs import DrainPolicy as DrainPolicy
from pyminuteman.ipvs import ForwardingMethod as ForwardingMethod
from pyminuteman.ipvs import IPVSTable as IPVSTable
from pyminuteman.ipvs import Persistence as Persistence
from pyminuteman.ipvs import Scope as Scope
from pyminuteman.ipvs import Service as Service
from pyminuteman.ipvs import ServiceFlags as ServiceFlags
from pyminuteman.ipvs import ServiceKey as ServiceKey
from pyminuteman.ipvs import Tunnel as Tunnel
from pyminuteman.ipvs import TunnelFlags as TunnelFlags
from pyminuteman.ipvs import TunnelType as TunnelType
