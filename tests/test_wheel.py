"""The wheel: one import package, which works from an environment without the checkout (the libraries are shared)."""

import os
import subprocess
import sys
import sysconfig
import time
import urllib.request
import zipfile
from pathlib import Path

import pytest
from mlflow_server import free_port

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    folder = tmp_path_factory.mktemp("dist")
    subprocess.run([sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)], cwd=ROOT, check=True,
                   stdout=subprocess.DEVNULL)  # fmt: skip
    return next(folder.glob("*.whl"))


@pytest.fixture(scope="module")
def installed(wheel, tmp_path_factory):
    """The command of a fresh environment with nothing but the wheel in it, and the variables to call it with."""
    folder = tmp_path_factory.mktemp("fresh")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder / "venv")], check=True)
    places = sysconfig.get_paths("posix_prefix", vars={"base": str(folder / "venv"), "platbase": str(folder / "venv")})
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(places["purelib"])
    libraries = sysconfig.get_paths()["purelib"]  # as PYTHONPATH its .pth files do not count: no checkout comes along
    variables = {**os.environ, "PYTHONPATH": libraries, "OMP_NUM_THREADS": "1"}
    return [str(folder / "venv" / "bin" / "python"), "-m", "coatnet_search"], {**variables, "HOME": str(folder)}, folder


def test_it_holds_one_import_package_with_all_that_it_reads(wheel):
    names = zipfile.ZipFile(wheel).namelist()

    tops = {name.split("/")[0] for name in names}
    assert {top for top in tops if not top.endswith(".dist-info")} == {"coatnet_search"}
    for part in ("dashboards/app.py", "dashboards/views/search.py", "search_spaces/digits.yaml",
                 "studies/quickstart.yaml", "figures/templates/report.html",
                 "analysis/published_points.csv"):  # fmt: skip
        assert f"coatnet_search/{part}" in names


def test_its_commands_run_from_an_environment_of_their_own(installed):
    command, variables, folder = installed

    def call(*words):
        return subprocess.run(words, cwd=folder, env=variables, capture_output=True, text=True, check=False)

    where = call(command[0], "-c", "import coatnet_search as c; print(c.__file__)").stdout
    planned = call(*command, "plan", "quickstart")
    ran = call(*command, "run", "quickstart", "--local", "--set", "search.trials=2", "tracking.enabled=false")
    reported = call(*command, "report", "runs/quickstart")

    assert str(folder) in where
    assert planned.returncode == 0, planned.stderr
    assert ran.returncode == 0, ran.stderr
    assert reported.returncode == 0 and (folder / "runs" / "quickstart" / "report.html").is_file(), reported.stderr


def test_its_dashboard_serves(installed):
    command, variables, folder = installed
    (folder / "runs").mkdir(exist_ok=True)
    port = free_port()

    server = subprocess.Popen([*command, "dashboard", "runs", "--port", str(port)], cwd=folder, env=variables,
                              stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)  # fmt: skip
    try:
        end, healthy = time.monotonic() + 120, b""
        while not healthy and server.poll() is None and time.monotonic() < end:
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{port}/_stcore/health", timeout=5) as answer:
                    healthy = answer.read()
            except OSError:
                time.sleep(0.5)
    finally:
        server.kill()
        server.wait()

    assert healthy == b"ok"
