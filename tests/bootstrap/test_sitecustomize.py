"""What is put before every Python program under `msgtap run`, whichever Python that is."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from msgtap.bootstrap import MODULES, PATH

# Those that happen to be on the machine, besides this one.
NAMES = ("python2.7", *(f"python3.{minor}" for minor in range(6, 16)))
WHICH = "import sys; sys.stdout.write('%d.%d ' % sys.version_info[:2] + sys.executable)"
VERSIONS = Path("~/.pyenv/versions").expanduser()


def pythons() -> list[str]:
    """Every kind of Python that can be found here and runs, this one first."""
    found = {f"{sys.version_info[0]}.{sys.version_info[1]}": sys.executable}
    candidates = [path for name in NAMES if (path := shutil.which(name))]
    candidates += [str(path) for path in sorted(VERSIONS.glob("*/bin/python"))] if VERSIONS.is_dir() else []
    for path in candidates:
        done = subprocess.run([path, "-c", WHICH], capture_output=True, text=True, check=False)
        if done.returncode == 0:  # a shim answers for versions that it does not have
            version, _, real = done.stdout.partition(" ")
            found.setdefault(version, real.strip())
    return list(found.values())


PYTHONS = pythons()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder on the path, with a client that is none."""
    (tmp_path / "fakeclient.py").write_text("name = 'client'\n")
    return tmp_path


def python(executable: str, code: str, folder: Path, *options: str, **environ: str) -> tuple[int, str, str]:
    """Run code as `msgtap run` would: exit code, output and errors."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join((PATH, str(folder))), MODULES: "fakeclient", **environ}
    command = [executable, *options, "-c", code]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=30)
    return done.returncode, done.stdout, done.stderr


@pytest.mark.parametrize("executable", PYTHONS)
def test_leaves_no_trace(executable: str, folder: Path) -> None:
    """The path and the modules are as they were, but for a finder that waits."""
    paths = "[p for p in sys.path if 'bootstrap' in p]"
    code = f"import sys; sys.stdout.write(str(({paths}, 'sitecustomize' in sys.modules)))"
    assert (0, "([], False)", "") == python(executable, code, folder)


@pytest.mark.parametrize("executable", PYTHONS)
def test_hands_over(executable: str, folder: Path) -> None:
    """The environment's own ``sitecustomize`` runs, and is the module of that name."""
    (folder / "sitecustomize.py").write_text("import sys\nsys.stdout.write('own\\n')\n")
    code = "import sys; sys.stdout.write(sys.modules['sitecustomize'].__file__)"
    assert f"own\n{folder}" in python(executable, code, folder)[1]


@pytest.mark.parametrize("executable", PYTHONS)
def test_hands_over_what_fails(executable: str, folder: Path) -> None:
    """One that fails, fails as it would without us."""
    (folder / "sitecustomize.py").write_text("raise KeyError('mine')\n")
    code = "import sys; sys.stdout.write('on we go')"
    without = python(executable, code, folder, PYTHONPATH=str(folder))
    assert without == python(executable, code, folder)


@pytest.mark.parametrize("executable", [path for path in PYTHONS[1:] if "2.7" not in path])
def test_python_without_msgtap(executable: str, folder: Path) -> None:
    """A Python that has no msgtap says so in one line, when a client is imported, and goes on."""
    code = "import sys; sys.stdout.write('1'); import fakeclient; sys.stdout.write(fakeclient.name)"
    status, output, errors = python(executable, code, folder, "-B")
    assert (0, "1client", 1) == (status, output, errors.count("\n"))
    assert f"msgtap: the calls of {executable} are not seen: " in errors
    assert f"Install it there: {executable} -m pip install msgtap" in errors


@pytest.mark.parametrize("executable", PYTHONS)
def test_no_client(executable: str, folder: Path) -> None:
    """A program without an HTTP client imports nothing of msgtap, and hears nothing of it."""
    code = "import sys, json; sys.stdout.write(str([name for name in sys.modules if 'msgtap' in name]))"
    assert (0, "[]", "") == python(executable, code, folder)


def test_client_before_us(folder: Path) -> None:
    """A client that a ``.pth`` file has imported before us is seen all the same."""
    early = "import sys, site; sys.modules['fakeclient'] = sys; site.main()"
    code = f"{early}; print('msgtap.bootstrap' in sys.modules)"
    assert "True\n" == python(sys.executable, code, folder, "-S", MSGTAP_STORE=str(folder / "calls.db"))[1]


@pytest.mark.parametrize("executable", PYTHONS)
def test_client_that_is_not_there(executable: str, folder: Path) -> None:
    """A program that can do without its client does without, and hears nothing of msgtap."""
    (folder / "fakeclient.py").unlink()
    code = "import sys\ntry:\n    import fakeclient\nexcept ImportError:\n    sys.stdout.write('without')"
    assert (0, "without", "") == python(executable, code, folder)


CLIENT = """
import sys
me = sys.modules[__name__]
print(type(__spec__.loader).__name__, type(__loader__).__name__, 'msgtap.bootstrap' in sys.modules)
"""


def test_client_is_itself(folder: Path) -> None:
    """The client is loaded once, by its own loader, before msgtap is, and msgtap may import it meanwhile."""
    (folder / "fakeclient.py").write_text(CLIENT)
    (folder / "msgtap_test_exporter.py").write_text(
        "import fakeclient\nraise ImportError(str(fakeclient.me is fakeclient))"
    )
    info = folder / "msgtap_test_exporter-1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: msgtap-test-exporter\nVersion: 1\n")
    (info / "entry_points.txt").write_text("[msgtap.exporters]\nnested = msgtap_test_exporter:exporter\n")
    code = "import sys, fakeclient; print(fakeclient is fakeclient.me, 'msgtap.bootstrap' in sys.modules)"
    environ = {"MSGTAP_STORE": str(folder / "calls.db"), "MSGTAP_EXPORTERS": "nested"}
    status, output, errors = python(sys.executable, code, folder, **environ)
    assert (0, "SourceFileLoader SourceFileLoader False\nTrue True\n") == (status, output)
    assert "msgtap: exporter nested: True\n" == errors


def test_cannot_start(folder: Path) -> None:
    """Where msgtap cannot be started, one line says why, and the program goes on."""
    environ = {"MSGTAP_DISABLED": "perhaps"}
    status, output, errors = python(sys.executable, "import fakeclient; print(fakeclient.name)", folder, **environ)
    assert (0, "client\n") == (status, output)
    expected = "MSGTAP_DISABLED: 'perhaps' is neither true nor false"
    assert f"msgtap: the calls of {sys.executable} are not seen: {expected}\n" == errors


def test_warnings_as_errors(folder: Path) -> None:
    """A program that makes errors of warnings is observed, and its filters are as they were."""
    code = "import sys, warnings; was = list(warnings.filters); import fakeclient; print(was == warnings.filters)"
    environ = {"MSGTAP_STORE": str(folder / "calls.db")}
    assert (0, "True\n", "") == python(sys.executable, code, folder, "-W", "error", **environ)
