"""The embedded store: every call of this user's programs, in one SQLite file on this machine."""

from msgtap_sqlite.erase import Erased, erase
from msgtap_sqlite.place import Place, StoreError, locate, prepare
from msgtap_sqlite.reader import Store, open_reader

__all__ = ["Erased", "Place", "Store", "StoreError", "erase", "locate", "open_reader", "prepare"]
