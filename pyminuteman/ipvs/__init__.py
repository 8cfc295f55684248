"""The kernel's IPVS table: a diff and apply engine over generic netlink.

``IPVSTable`` is the way in; services, destinations and a scope are what it takes::

    web = Service.tcp("11.0.0.1", 80, scheduler="wlc")
    desired = {web: [Destination("10.0.0.5", 8080, weight=2), Destination("10.0.0.6", 8080)]}
    with IPVSTable(scope=Scope.networks("11.0.0.0/8")) as table:
        report = table.converge(desired)

Importing this loads neither the C module nor libnl; opening a table does.
"""

from pyminuteman.ipvs.backend import TableBackend as TableBackend
from pyminuteman.ipvs.connections import Connection as Connection
from pyminuteman.ipvs.control import KernelInformation as KernelInformation
from pyminuteman.ipvs.control import SyncDaemon as SyncDaemon
from pyminuteman.ipvs.control import SyncRole as SyncRole
from pyminuteman.ipvs.control import Timeouts as Timeouts
from pyminuteman.ipvs.destination import WEIGHT_MAX as WEIGHT_MAX
from pyminuteman.ipvs.destination import Destination as Destination
from pyminuteman.ipvs.destination import ForwardingMethod as ForwardingMethod
from pyminuteman.ipvs.destination import Tunnel as Tunnel
from pyminuteman.ipvs.destination import TunnelFlags as TunnelFlags
from pyminuteman.ipvs.destination import TunnelType as TunnelType
from pyminuteman.ipvs.drain import DrainPolicy as DrainPolicy
from pyminuteman.ipvs.errors import ApplyError as ApplyError
from pyminuteman.ipvs.errors import DestinationExists as DestinationExists
from pyminuteman.ipvs.errors import InvalidDestinationError as InvalidDestinationError
from pyminuteman.ipvs.errors import InvalidServiceError as InvalidServiceError
from pyminuteman.ipvs.errors import IPVSError as IPVSError
from pyminuteman.ipvs.errors import IPVSUnavailableError as IPVSUnavailableError
from pyminuteman.ipvs.errors import KernelError as KernelError
from pyminuteman.ipvs.errors import NoSuchDestination as NoSuchDestination
from pyminuteman.ipvs.errors import NoSuchScheduler as NoSuchScheduler
from pyminuteman.ipvs.errors import NoSuchService as NoSuchService
from pyminuteman.ipvs.errors import NotConverged as NotConverged
from pyminuteman.ipvs.errors import NotPermitted as NotPermitted
from pyminuteman.ipvs.errors import OutsideScope as OutsideScope
from pyminuteman.ipvs.errors import ServiceExists as ServiceExists
from pyminuteman.ipvs.errors import SnapshotUnstable as SnapshotUnstable
from pyminuteman.ipvs.errors import TableBusy as TableBusy
from pyminuteman.ipvs.errors import Unsupported as Unsupported
from pyminuteman.ipvs.ipvsadm import format_table as format_table
from pyminuteman.ipvs.ipvsadm_parser import parse_table as parse_table
from pyminuteman.ipvs.netlink import NetlinkBackend as NetlinkBackend
from pyminuteman.ipvs.plan import AddDestination as AddDestination
from pyminuteman.ipvs.plan import AddService as AddService
from pyminuteman.ipvs.plan import ApplyReport as ApplyReport
from pyminuteman.ipvs.plan import EditDestination as EditDestination
from pyminuteman.ipvs.plan import EditService as EditService
from pyminuteman.ipvs.plan import Flush as Flush
from pyminuteman.ipvs.plan import Operation as Operation
from pyminuteman.ipvs.plan import Plan as Plan
from pyminuteman.ipvs.plan import RemoveDestination as RemoveDestination
from pyminuteman.ipvs.plan import RemoveService as RemoveService
from pyminuteman.ipvs.plan import Zero as Zero
from pyminuteman.ipvs.plan import diff as diff
from pyminuteman.ipvs.scope import Scope as Scope
from pyminuteman.ipvs.service import Persistence as Persistence
from pyminuteman.ipvs.service import Protocol as Protocol
from pyminuteman.ipvs.service import Service as Service
from pyminuteman.ipvs.service import ServiceFlags as ServiceFlags
from pyminuteman.ipvs.service import ServiceKey as ServiceKey
from pyminuteman.ipvs.snapshot import Desired as Desired
from pyminuteman.ipvs.snapshot import Features as Features
from pyminuteman.ipvs.snapshot import Snapshot as Snapshot
from pyminuteman.ipvs.statistics import Connections as Connections
from pyminuteman.ipvs.statistics import Counters as Counters
from pyminuteman.ipvs.statistics import DestinationStatistics as DestinationStatistics
from pyminuteman.ipvs.statistics import Rates as Rates
from pyminuteman.ipvs.statistics import ServiceStatistics as ServiceStatistics
from pyminuteman.ipvs.table import IPVSTable as IPVSTable
