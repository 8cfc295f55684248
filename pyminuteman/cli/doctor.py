"""``minuteman doctor``: what this host lacks for VIPs, why that matters, and putting it right."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import click
from click.core import ParameterSource

from pyminuteman.addresses import Endpoint
from pyminuteman.cli import exit_codes
from pyminuteman.cli.application import Application, pass_application
from pyminuteman.cli.config_options import config_file, settings
from pyminuteman.cli.doctor_config import check_configuration, options_of, patient_of, read, unless_missing
from pyminuteman.cli.options import output
from pyminuteman.cli.terminal import clean, out, out_json, say, wants_color
from pyminuteman.daemon.config import DaemonConfig
from pyminuteman.errors import ConfigurationError
from pyminuteman.host.announcements import DEVICE
from pyminuteman.host.diagnosis import examine, fix, undo
from pyminuteman.host.findings import Finding, Severity

__all__ = ["doctor_command"]

_PORT: Final = 61420
_COLORS: Final = {Severity.OK: "green", Severity.INFO: "blue", Severity.WARNING: "yellow", Severity.ERROR: "red"}
_HELP: Final = """\b
Exit codes:
  0   all is well, or put right
  1   something is wrong that --fix does not put right; or it failed
  2   wrong usage
  3   something is wrong, and --fix would put all of it right
  77  not permitted: run as root, or with CAP_NET_ADMIN
  78  the configuration is no good, so that it is not known what --fix and --undo are to do
"""


def _endpoint(_context: click.Context, _parameter: click.Parameter, text: Any) -> Any:
    try:
        if isinstance(text, tuple):
            return tuple(Endpoint.parse(one, default_port=_PORT) for one in text)
        return None if text is None else Endpoint.parse(text, default_port=_PORT)
    except ValueError as error:
        raise click.BadParameter(str(error)) from error


_PATH: Final = click.Path(path_type=Path)


@click.command("doctor", epilog=_HELP)
@config_file
@settings
@click.option("--no-config", is_flag=True, help="Look at the usual, whatever the daemon's configuration says.")
@click.option("--fix", "fixing", is_flag=True, help="Put right what can be put right.")
@click.option("--undo", "undoing", is_flag=True, help="Take back what --fix and the daemon have done to this host.")
@click.option("--all", "everything", is_flag=True, help="Show what is well, too.")
@click.option("--netns", metavar="PATH", help="Look at this network namespace; takes CAP_SYS_ADMIN.")
@click.option("--device", default=DEVICE, show_default=True, metavar="NAME", help="The device of VIP addresses.")
@click.option("--announce", type=click.Choice(["address", "route", "none"]), default="address", show_default=True,
              help="How VIPs are made addresses of this host.")  # fmt: skip
@click.option("--masquerade", type=click.Choice(["auto", "nft", "iptables", "none"]), default="auto", show_default=True,
              help="By which tool connections are masqueraded.")  # fmt: skip
@click.option("--guard/--no-guard", default=True, show_default=True, help="Keep ports of the host from VIP addresses.")
@click.option(
    "--bypass/--no-bypass", default=True, show_default=True, help="Keep host-port rules of others from VIP addresses."
)
@click.option("--sysctls/--no-sysctls", default=True, show_default=True, help="Have the kernel's settings as VIPs need them.")
@click.option("--forward", is_flag=True, help="This host serves other machines or containers: ip_forward is needed.")
@click.option("--routed", is_flag=True, help="Some VIPs are forwarded by route or tunnel.")
@click.option("--ipv6", is_flag=True, help="Some VIPs are IPv6.")
@click.option("--scheduler", "schedulers", multiple=True, default=("rr", "wlc"), show_default=True, metavar="NAME",
              help="A scheduler that VIPs use; several times.")  # fmt: skip
@click.option("--bind", metavar="ADDRESS[:PORT]", callback=_endpoint, help=f"The gossip port; {_PORT} unless said otherwise.")
@click.option("--contact", "contacts", multiple=True, metavar="ADDRESS[:PORT]", callback=_endpoint,
              help="A member to try to reach; several times.")  # fmt: skip
@click.option("--cluster", default="minuteman", show_default=True, metavar="NAME", help="The cluster's name.")
@click.option("--key-file", type=_PATH, metavar="FILE", help="The cluster's key: members answer nobody without it.")
@click.option("--insecure", is_flag=True, help="The cluster is run without a key.")
@click.option("--state-directory", type=_PATH, metavar="DIR", default="/var/lib/minuteman", show_default=True,
              help="The daemon's; what --fix changed is remembered there.")  # fmt: skip
@click.option(
    "--api-socket", type=_PATH, metavar="FILE", default="/run/minuteman/api.sock", show_default=True, help="The daemon's."
)
@click.option("--nodes", type=click.IntRange(0, 100_000), default=0, metavar="N", help="How many nodes the cluster has.")
@click.option("--timeout", "timeout_seconds", type=click.FloatRange(0.05, 60), default=1.0, show_default=True, metavar="SECONDS",
              help="For each attempt to reach a member.")  # fmt: skip
@output("text", "json")
@pass_application
def doctor_command(application: Application, /, **options: Any) -> int:
    """Look at all that VIPs need of this host, say what is wrong and why it matters; with --fix, put it right.

    What is needed is taken from the daemon's configuration, where there is one; options say otherwise.
    """
    if options["fixing"] and options["undoing"]:
        raise click.UsageError("give --fix or --undo, not both")
    if options["insecure"] and options["key_file"]:
        raise click.UsageError("a cluster has a key, or is run --insecure")
    path, configuration = _configuration(options)
    if isinstance(configuration, ConfigurationError) and (options["fixing"] or options["undoing"]):
        raise configuration
    patient = patient_of(_merged(options, configuration if isinstance(configuration, DaemonConfig) else None))
    if options["undoing"]:
        undone = undo(patient)
        say([f"taken back: {name}" for name in undone] or "there was nothing to take back")
        return exit_codes.OK
    done = fix(patient) if options["fixing"] else []
    findings = [*check_configuration(path, configuration), *examine(patient)]
    if options["form"] == "json":
        out_json({"version": 1, "fixed": done}, "findings", (found.plain() for found in findings))
    else:
        say([f"done: {line}" for line in done])
        _show(
            findings,
            everything=options["everything"],
            color=wants_color(sys.stdout, no_color=application.no_color),
        )
    return _code(findings)


def _configuration(options: dict[str, Any]) -> tuple[Path | None, DaemonConfig | ConfigurationError | None]:
    """Where the configuration is, and what was read; the usual place counts only if something is there."""
    usual = click.get_current_context().get_parameter_source("path") is ParameterSource.DEFAULT
    path: Path | None = options["path"]
    if options["no_config"]:
        if not usual or options["overrides"]:
            raise click.UsageError("--no-config goes with neither --config nor --set")
        path = None
    elif usual and path is not None:
        path = unless_missing(path)
    return path, read(path, options["overrides"])


def _merged(options: dict[str, Any], config: DaemonConfig | None) -> dict[str, Any]:
    """What was said on the command line, above what the configuration says, above what is usual."""
    merged = {"api_tcp": None, "dns_bind": None, "namespaces": None} | options
    if config is not None:
        context = click.get_current_context()
        given = {name for name in options if context.get_parameter_source(name) is not ParameterSource.DEFAULT}
        if given & {"key_file", "insecure"}:  # one of the two says all
            given |= {"key_file", "insecure"}
        merged |= {name: value for name, value in options_of(config).items() if name not in given}
    return merged


def _code(findings: Sequence[Finding]) -> int:
    wrong = [found for found in findings if found.severity is Severity.ERROR or (found.fixable and not found.ok)]
    if not wrong:
        return exit_codes.OK
    if any(found.id == "rights.net_admin" for found in wrong):
        return exit_codes.NOT_PERMITTED
    return exit_codes.CHANGES if all(found.fixable for found in wrong) else exit_codes.FAILED


def _show(findings: Sequence[Finding], *, everything: bool, color: bool) -> None:
    for found in findings:
        if found.ok and not everything and not (found.severity is Severity.INFO and found.fix):
            continue
        word = click.style(f"{found.severity.value:<7}", fg=_COLORS[found.severity], bold=None if found.ok else True)
        lines = [f"{word}  {clean(found.what)}  [{found.id}]"]
        if not found.ok or everything:
            lines.append(f"         why: {clean(found.why)}")
        if found.fix:
            lines.append(f"         fix: {clean(found.fix)}{'  (--fix does it)' if found.fixable else ''}")
        out("\n".join(lines), color=color)
    counts = Counter(found.severity for found in findings)
    parts = [f"{counts[severity]} {severity.value}" for severity in reversed(Severity) if counts[severity]]
    say(f"{len(findings)} findings: {', '.join(parts)}" + ("" if everything else "; --all shows what is well, too"))
