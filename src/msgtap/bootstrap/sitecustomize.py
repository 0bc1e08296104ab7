"""Put first on PYTHONPATH by ``msgtap run``: Python imports it before the program, in every child process too.

It imports nothing but what is loaded anyway, and waits: msgtap itself is only loaded when the program has imported an
HTTP client. Any Python may come by here, with or without msgtap, so this is written for all of them, 2.7 included.
"""

import os
import sys


class _Waiter(object):
    """A finder that finds what others find: it has msgtap switched on when the first HTTP client is there."""

    def __init__(self, modules):
        self.modules = modules
        self.asking = False

    def find_spec(self, name, path=None, target=None):
        if name not in self.modules or self.asking:
            return None
        from importlib.util import find_spec

        self.asking = True
        try:
            spec = find_spec(name)
        finally:
            self.asking = False
        if hasattr(getattr(spec, "loader", None), "exec_module"):
            spec.loader = _Loader(spec.loader, self)
        return spec

    def switch_on(self):
        if self not in sys.meta_path:  # another client was faster
            return
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


class _Loader(object):
    """The loader of a client, which steps aside as soon as it is used."""

    def __init__(self, loader, waiter):
        self.loader = loader
        self.waiter = waiter

    def create_module(self, spec):
        return self.loader.create_module(spec)

    def exec_module(self, module):
        module.__spec__.loader = module.__loader__ = self.loader
        self.loader.exec_module(module)
        self.waiter.switch_on()

    def __getattr__(self, name):
        return getattr(self.loader, name)


def _say(reason):
    if sys.stderr is not None:
        sys.stderr.write("msgtap: the calls of %s are not seen: %s\n" % (sys.executable, reason))


def _wait():
    modules = frozenset(os.environ.get("MSGTAP_RUN_MODULES", "").split(",")) - {""}
    if not modules or sys.version_info < (3, 4):
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
