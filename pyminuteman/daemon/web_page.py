"""The web page as the API serves it: the document that is rendered anew, and the files that stay."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from pyminuteman.daemon.assets import Asset, load_assets
from pyminuteman.daemon.page import render_page

__all__ = ["WebPage"]


class WebPage:
    """For :func:`pyminuteman.daemon.api.open_api`.

    Raises:
        OSError: A file of the installation cannot be read.
    """

    def __init__(self) -> None:
        """Read the files."""
        self.files: Mapping[str, Asset] = load_assets()

    def render(
        self,
        *,
        status: Mapping[str, Any],
        members: Mapping[str, Any],
        backends: Mapping[str, Any],
        topology: Mapping[str, Any],
        events: Mapping[str, Any],
        at: datetime,
    ) -> str:
        """See :func:`pyminuteman.daemon.page.render_page`."""
        return render_page(status=status, members=members, backends=backends, topology=topology, events=events, at=at)
