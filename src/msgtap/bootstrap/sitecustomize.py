"""Put first on PYTHONPATH by ``msgtap run``: Python imports it before the program, in every child process too.

It imports nothing but what is loaded anyway, and waits: msgtap itself is only loaded when the program imports an HTTP
client. Any Python may come by here, with or without msgtap, so this is written for all of them, 2.7 included.
"""

import os
import sys


class _Waiter(object):  # as above
    """A finder that finds nothing: it switches msgtap on just before the first HTTP client is imported."""

    def __init__(self, modules):
        self.modules = modules
        self.keep = sys.modules["sitecustomize"]  # Python 2 empties a module that nobody refers to

    def find_spec(self, name, path=None, target=None):
        if name not in self.modules:
            return None
        self.switch_on()
        # Once more from the start: import hooks stand there now, and must have their say on this module too.
        from importlib.util import find_spec

        return find_spec(name)

    def find_module(self, name, path=None):
        """Python 2 asks this way. There is no msgtap for it, but there may be calls."""
        if name in self.modules:
            self.switch_on()

    def switch_on(self):
        sys.meta_path.remove(self)
        try:
            import warnings

            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # the program may have made errors of them
                from msgtap.bootstrap import start

                start()
        except ImportError as error:
            _say("%s. Install it there: %s -m pip install msgtap" % (error, sys.executable))
        except Exception as error:  # the program must run, whatever becomes of us
            _say(error)


def _say(reason):
    if sys.stderr is not None:
        sys.stderr.write("msgtap: the calls of %s are not seen: %s\n" % (sys.executable, reason))


def _wait():
    modules = frozenset(os.environ.get("MSGTAP_RUN_MODULES", "").split(",")) - {""}
    if not modules:
        return
    waiter = _Waiter(modules)
    sys.meta_path.insert(0, waiter)
    if modules.intersection(sys.modules):  # a .pth file was faster
        waiter.switch_on()


def _leave():
    here = os.path.dirname(os.path.abspath(__file__))
    sys.path[:] = [entry for entry in sys.path if os.path.abspath(entry) != here]
    sys.path_importer_cache.pop(here, None)
    del sys.modules["sitecustomize"]


_wait()
_leave()
# The environment's own: whatever this raises, if only that there is none, Python's ``site`` expects it from here.
import sitecustomize  # noqa: E402, F401
