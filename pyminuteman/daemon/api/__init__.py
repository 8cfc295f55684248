"""The HTTP API of the daemon: JSON, events as they happen, metrics, and the page.

Needs starlette and h11, from the extra ``daemon``.
"""

from __future__ import annotations

from pyminuteman.daemon.api.application import Api as Api
from pyminuteman.daemon.api.application import open_api as open_api
from pyminuteman.daemon.api.options import ApiOptions as ApiOptions
from pyminuteman.daemon.api.page_routes import Page as Page
from pyminuteman.daemon.api.page_routes import PageFile as PageFile
from pyminuteman.daemon.api.subject import Happenings as Happenings
from pyminuteman.daemon.api.subject import NoSuchThing as NoSuchThing
from pyminuteman.daemon.api.subject import NotNow as NotNow
from pyminuteman.daemon.api.subject import Reloaded as Reloaded
from pyminuteman.daemon.api.subject import Subject as Subject
