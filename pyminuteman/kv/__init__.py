"""The replicated store: what each node says, and what all may change, the same on every node before long.

    async with open_store(membership, path=Path("/var/lib/minuteman/store.db")) as store:
        await store.put_own("vips/tcp:11.0.0.1:80", b"10.0.0.5:8080")

:class:`Store` is what every engine does. :func:`open_store` opens the one that gossips; others are imported by their names. Other
modules of this package may change between releases.
"""

from __future__ import annotations

from pyminuteman.kv.errors import InvalidKeyError as InvalidKeyError
from pyminuteman.kv.errors import InvalidOperationError as InvalidOperationError
from pyminuteman.kv.errors import StoreClosed as StoreClosed
from pyminuteman.kv.errors import StoreDatabaseError as StoreDatabaseError
from pyminuteman.kv.errors import StoreError as StoreError
from pyminuteman.kv.errors import StoreLimitError as StoreLimitError
from pyminuteman.kv.errors import StoreUnavailable as StoreUnavailable
from pyminuteman.kv.errors import TooManyKeys as TooManyKeys
from pyminuteman.kv.errors import ValueTooLarge as ValueTooLarge
from pyminuteman.kv.operations import Add as Add
from pyminuteman.kv.operations import AddElement as AddElement
from pyminuteman.kv.operations import Assign as Assign
from pyminuteman.kv.operations import Disable as Disable
from pyminuteman.kv.operations import Enable as Enable
from pyminuteman.kv.operations import InMap as InMap
from pyminuteman.kv.operations import Kind as Kind
from pyminuteman.kv.operations import Operation as Operation
from pyminuteman.kv.operations import Remove as Remove
from pyminuteman.kv.operations import RemoveElement as RemoveElement
from pyminuteman.kv.operations import SharedKey as SharedKey
from pyminuteman.kv.operations import SharedValue as SharedValue
from pyminuteman.kv.store import Changes as Changes
from pyminuteman.kv.store import Entry as Entry
from pyminuteman.kv.store import Store as Store
from pyminuteman.kv.store import StoreLimits as StoreLimits
from pyminuteman.kv.transfer import Imported as Imported
from pyminuteman.kv.transfer import export_store as export_store
from pyminuteman.kv.transfer import import_store as import_store
from pyminuteman.kv.trio_driver import GossipStore as GossipStore
from pyminuteman.kv.trio_driver import open_store as open_store
