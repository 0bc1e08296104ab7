"""A pytest plugin that gives whoever imports httpx the module httpx2, by httpx2's own means.

It runs at import, which for a plugin named with ``-p`` comes before any conftest.
"""

import httpx2

httpx2.alias_httpx()
