"""The three that keep one contract: the fake, our C code with a puppet for a kernel, and the kernel."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from pyminuteman.ipvs import NetlinkBackend, Operation, Plan, TableBackend
from pyminuteman.testing.fake_kernel import FakeKernel
from tests.support.puppet import PuppetKernel

KERNEL = pytest.param("kernel", marks=pytest.mark.kernel)


@dataclass
class Subject:
    """A backend under test, its table empty."""

    kind: str
    backend: TableBackend
    fake: FakeKernel | None
    """What holds the table of the fake and the puppet; tests reach in for what only they can show."""
    puppet: PuppetKernel | None

    def do(self, *operations: Operation, stop_on_error: bool = False) -> dict[int, int]:
        """Carry out operations; the errnos of those that failed, by their place."""
        failed = self.backend.execute(Plan.of(operations), stop_on_error=stop_on_error)
        return {at: errno for at, (errno, _) in failed.items()}

    def doubles_only(self) -> FakeKernel:
        assert self.fake is not None
        return self.fake


@pytest.fixture(params=["fake", "puppet", KERNEL])
def subject(request: pytest.FixtureRequest) -> Iterator[Subject]:
    yield from subjects(request.param)


@pytest.fixture(params=["fake", "puppet"])
def double(request: pytest.FixtureRequest) -> Iterator[Subject]:
    """Only those that can be given counters, or be an old kernel."""
    yield from subjects(request.param)


@pytest.fixture
def interface(subject: Subject) -> str:
    """The name of an interface that is up and has multicast."""
    if subject.kind == "kernel":
        for command in ("link add eth0 type veth peer name eth1", "link set eth1 up", "link set eth0 up"):
            subprocess.run(["ip", *command.split()], check=True)
    return "eth0"


def subjects(kind: str) -> Iterator[Subject]:
    if kind == "kernel":
        with NetlinkBackend() as backend:
            yield Subject(kind, backend, None, None)
        return
    fake = FakeKernel()
    if kind == "fake":
        yield Subject(kind, fake, fake, None)
        return
    puppet = PuppetKernel(fake)
    with puppet.backend() as backend:
        yield Subject(kind, backend, fake, puppet)
    puppet.close()
