"""What an error number becomes, and what the errors say."""

from __future__ import annotations

import errno

import pytest

from pyminuteman.ipvs import (
    AddDestination,
    AddService,
    ApplyError,
    ApplyReport,
    Destination,
    DestinationExists,
    KernelError,
    NoSuchDestination,
    NoSuchScheduler,
    NoSuchService,
    NotConverged,
    NotPermitted,
    Persistence,
    Plan,
    Service,
    ServiceExists,
)
from pyminuteman.ipvs.errors import kernel_error
from pyminuteman.ipvs.records import Command

WEB, A = Service.tcp("11.0.0.1", 80), Destination("10.0.0.1", 80)
START, STOP = 9, 10


@pytest.mark.parametrize(
    ("number", "command", "kind"),
    [
        (errno.EPERM, 0, NotPermitted),
        (errno.EACCES, Command.ADD_SERVICE, NotPermitted),
        (errno.EEXIST, Command.ADD_SERVICE, ServiceExists),
        (errno.EEXIST, Command.ADD_DESTINATION, DestinationExists),
        (errno.EEXIST, START, KernelError),
        (errno.ESRCH, Command.ADD_DESTINATION, NoSuchService),
        (errno.ESRCH, 0, NoSuchService),
        (errno.ESRCH, STOP, KernelError),
        (errno.ENOENT, Command.ADD_SERVICE, NoSuchScheduler),
        (errno.ENOENT, Command.EDIT_SERVICE, NoSuchScheduler),
        (errno.ENOENT, Command.EDIT_DESTINATION, NoSuchDestination),
        (errno.ENOENT, Command.REMOVE_DESTINATION, NoSuchDestination),
        (errno.ENOENT, 0, KernelError),
        (errno.EINVAL, Command.ADD_DESTINATION, KernelError),
        (errno.EINVAL, Command.ADD_SERVICE, KernelError),
    ],
)
def test_a_number_and_a_command_make_a_class(number: int, command: int, kind: type[KernelError]) -> None:
    error = kernel_error(number, command, "do it", "words")
    assert type(error) is kind
    assert (error.errno, error.operation, error.text) == (number, "do it", "words")
    assert isinstance(error, OSError)


@pytest.mark.parametrize(
    ("number", "command", "text"),
    [
        (errno.ESRCH, Command.EDIT_SERVICE, "do it: No such process; there is no such service"),
        (errno.EINVAL, Command.ADD_SERVICE, "do it: Invalid argument"),
        (
            errno.ENODATA,
            Command.ADD_SERVICE,
            "do it: No data available; the kernel's answer was lost, so it may have been done",
        ),
        (errno.ECANCELED, Command.ADD_SERVICE, "do it: Operation canceled; not tried, after an earlier failure"),
        (errno.EEXIST, START, "do it: File exists; one of this role runs already"),
        (errno.ESRCH, STOP, "do it: No such process; none of this role runs"),
    ],
)
def test_an_error_says_what_it_means(number: int, command: int, text: str) -> None:
    assert str(kernel_error(number, command, "do it")) == text


def test_an_invalid_destination_may_be_the_loopback_devices_fault() -> None:
    assert "ip link set lo up" in str(kernel_error(errno.EINVAL, Command.ADD_DESTINATION, "add"))


def test_the_kernels_own_words_are_quoted() -> None:
    assert str(kernel_error(errno.EINVAL, 0, "add", "no eels")) == 'add: Invalid argument; the kernel says "no eels"'


def test_a_scheduler_that_is_missing_is_named_with_its_module() -> None:
    error = kernel_error(errno.ENOENT, Command.ADD_SERVICE, "add", names=["mine", "sip"])
    assert error.hint == "the kernel has no mine or no sip, nor could load it: modprobe ip_vs_mine ip_vs_pe_sip"


def report(failures: int) -> ApplyReport:
    rows = [AddDestination(WEB, Destination("10.0.0.1", port)) for port in range(10)]
    return ApplyReport(Plan.of(rows), 0.5, dict.fromkeys(range(failures), (errno.EEXIST, "")))


def test_a_plan_that_failed_in_part_lists_the_first_failures() -> None:
    lines = str(ApplyError(report(7))).splitlines()
    assert lines[0] == "7 of 10 operations failed"
    assert lines[1] == "  -a -t 11.0.0.1:80 -r 10.0.0.1:0 -m -w 1: File exists"
    assert (len(lines), lines[-1]) == (7, "  and 2 more")
    assert len(str(ApplyError(report(2))).splitlines()) == 3


def test_a_table_that_did_not_converge_tells_what_is_left_and_why() -> None:
    text = str(NotConverged(3, report(1).plan, report(1)))
    assert text.startswith("after 3 attempts 10 operations are still needed (another writer")
    assert "-r 10.0.0.1:0 -m -w 1: File exists" in text
    assert str(NotConverged(1, Plan(), None)).endswith(":\n")


def test_a_report_names_what_was_refused_and_what_was_done() -> None:
    engine = Service.udp("11.0.0.1", 5060, persistence=Persistence(), persistence_engine="sip")
    plan = Plan.of([AddService(WEB), AddService(engine), AddDestination(WEB, A)])
    result = ApplyReport(plan, 0.5, {1: (errno.ENOENT, ""), 2: (errno.EINVAL, "")})
    assert list(result.applied) == [AddService(WEB)]
    assert [type(failure) for failure in result.failed] == [NoSuchScheduler, KernelError]
    assert "ip_vs_pe_sip" in str(result.failed[0])
    assert ApplyReport(plan, 0.5).applied is plan
    assert ApplyReport(plan, 0.5).failed == []
