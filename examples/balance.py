"""The example of README.md as a file. Run it as root (or with CAP_NET_ADMIN) where the kernel has IPVS."""

from pyminuteman import Destination, IPVSTable, Scope, Service

web = Service.tcp("11.0.0.1", 80, scheduler="wlc")
desired = {web: [Destination("10.0.0.5", 8080, weight=2), Destination("10.0.0.6", 8080)]}

with IPVSTable(scope=Scope.networks("11.0.0.0/8")) as table:  # only services in scope are ever changed
    plan = table.plan(desired)  # reads as ipvsadm lines
    print(plan or "already there")
    report = table.apply(plan)  # raises when anything failed
    print(f"{len(report.applied)} operations in {report.elapsed_seconds:.3f} s")
