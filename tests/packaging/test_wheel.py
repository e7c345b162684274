"""Builds sdist and wheel, installs the wheel in a fresh environment, and uses it as a stranger would.

All of it works offline: the build backend and the dependencies are those of the environment under test.
"""

import json
import os
import site
import subprocess
import sys
import venv
import zipfile
from pathlib import Path

import pytest

# One group, so that parallel runs build only once.
pytestmark = [pytest.mark.packaging, pytest.mark.xdist_group("packaging")]

ROOT = Path(__file__).parents[2]
FOLDERS = ("faults", "golden_workflows", "harness", "reports", "runtime", "scenarios")


def run(*command: str | Path, cwd: Path) -> str:
    """The command's standard output; a non-zero exit fails the test with all it printed."""
    # A path set by whoever runs the tests could hide that the wheel lacks something.
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(
        list(map(str, command)),
        cwd=cwd,
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, f"{command} exited {done.returncode}\n{done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built from the sdist and not from the checkout."""
    dist = tmp_path_factory.mktemp("dist")
    run(sys.executable, "-m", "build", "--no-isolation", "--outdir", dist, ROOT, cwd=dist)
    assert len(list(dist.glob("kintsugi_bench-*.tar.gz"))) == 1
    (built,) = dist.glob("kintsugi_bench-*.whl")
    return built


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The bin folder of an environment with the wheel; its dependencies are borrowed from this one."""
    home = tmp_path_factory.mktemp("venv")
    venv.create(home, with_pip=False, symlinks=True)
    python = home / "bin" / "python"
    pip = (sys.executable, "-m", "pip", "--python", python, "--quiet")
    run(*pip, "install", "--no-deps", "--no-index", wheel, cwd=home)
    # Folders named in a .pth file come after the environment's own, and their .pth files are not read:
    # the wheel is found first, and an editable install in this environment is not found at all.
    (own,) = home.glob("lib/python*/site-packages")
    (own / "borrowed.pth").write_text("\n".join(site.getsitepackages()), encoding="utf-8")
    return python.parent


@pytest.fixture
def elsewhere(tmp_path: Path) -> Path:
    """A user's project with packages of the same names as our folders; importing one is an error."""
    for folder in FOLDERS:
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "__init__.py").write_text(
            f"raise RuntimeError('the user\\'s own {folder}/ was imported')", encoding="utf-8"
        )
    return tmp_path


@pytest.mark.parametrize("folder", FOLDERS)
def test_wheel_holds_every_file_of(folder: str, wheel: Path) -> None:
    expected = {
        f"kintsugi/{path.relative_to(ROOT)}"
        for path in (ROOT / folder).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert f"kintsugi/{folder}/__init__.py" in expected
    assert expected - set(zipfile.ZipFile(wheel).namelist()) == set()


def test_wheel_holds_nothing_outside_the_package(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    tops = {name.split("/")[0] for name in names}
    assert {top for top in tops if not top.endswith(".dist-info")} == {"kintsugi"}
    assert "kintsugi/py.typed" in names
    assert any(name.endswith("licenses/LICENSE") for name in names)


def test_the_wheel_is_what_gets_imported(installed: Path, elsewhere: Path) -> None:
    program = (
        "import json, importlib, importlib.metadata as metadata, kintsugi;"
        f"modules = [kintsugi, *(importlib.import_module('kintsugi.' + name) for name in {FOLDERS})];"
        "version = metadata.version('kintsugi-bench');"
        "print(json.dumps([version, kintsugi.__version__, *(module.__file__ for module in modules)]))"
    )
    packaged, declared, *files = json.loads(run(installed / "python", "-c", program, cwd=elsewhere))
    assert packaged == declared
    assert all(Path(file).is_relative_to(installed.parent) for file in files), files


@pytest.mark.parametrize("argument", ["--help", "list"])
def test_command_works_beside_folders_of_the_same_names(argument: str, installed: Path, elsewhere: Path) -> None:
    assert run(installed / "kintsugi", argument, cwd=elsewhere).strip()
