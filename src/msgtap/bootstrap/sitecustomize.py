"""Put first on PYTHONPATH by ``msgtap run``: Python imports it before the program, in every child process too.

It imports nothing but what is loaded anyway, and waits: msgtap itself is only loaded when the program imports an HTTP
client. Then it hands over to the environment's own ``sitecustomize``, if there is one.
"""

import os
import sys


class _Waiter:
    """A finder that finds nothing: it switches msgtap on just before the first HTTP client is imported."""

    def __init__(self, modules):
        self.modules = modules

    def find_spec(self, name, path=None, target=None):
        if name not in self.modules:
            return None
        sys.meta_path.remove(self)
        try:
            from msgtap.bootstrap import start

            start()
        except Exception as error:  # the program must run, whatever became of us
            sys.stderr.write(f"msgtap: cannot observe {sys.executable}: {error}\n")
        # Once more from the start: import hooks stand there now, and must have their say on this module too.
        from importlib.util import find_spec

        return find_spec(name)


def _hand_over():
    here = os.path.dirname(os.path.abspath(__file__))
    sys.path[:] = [entry for entry in sys.path if os.path.abspath(entry or ".") != here]
    del sys.modules["sitecustomize"]
    try:
        import sitecustomize  # noqa: F401
    except ImportError:
        pass


_modules = frozenset(os.environ.get("MSGTAP_RUN_MODULES", "").split(",")) - {""}
if _modules:
    sys.meta_path.insert(0, _Waiter(_modules))
_hand_over()
