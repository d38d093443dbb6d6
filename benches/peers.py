"""The builders that are compared: how each is emptied, and the commands that it builds, exports and expands with."""
import os
import shutil
import socket
import subprocess
import time

TICK = os.sysconf("SC_CLK_TCK")


def quiet(*command, **kwargs):
    return subprocess.run(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, **kwargs)


def cpu_of(pid):
    fields = open(f"/proc/{pid}/stat").read().rsplit(")", 1)[1].split()
    return sum(map(int, fields[11:15])) / TICK


class Tool:
    """One builder: how it is emptied, and the command that builds a context."""
    name = ""

    def __init__(self, work):
        self.work = work
        self.env = dict(os.environ)
        self.rename(self.name)

    def rename(self, name):
        self.name = name
        self.dir = f"{self.work}/{name.replace(' ', '-')}"
        self.archive = f"{self.dir}.tar"

    def clear(self):
        shutil.rmtree(self.dir, ignore_errors=True)
        os.makedirs(self.dir)

    def daemons(self):
        return []

    def close(self):
        shutil.rmtree(self.dir, ignore_errors=True)


class Dockless(Tool):
    name = "dockless"

    def __init__(self, work, program, bases):
        super().__init__(work)
        self.program, self.bases = program, bases

    def rename(self, name):
        super().rename(name)
        self.env["DOCKLESS_STATE"] = self.dir

    def clear(self, bases=True):
        super().clear()
        for name, tar in self.bases.items() if bases else ():
            subprocess.run([self.program, "import", tar, name], env=self.env, check=True, stdout=subprocess.DEVNULL)

    def build(self, context, nocache=False):
        return [[self.program, "build", *(["--no-cache"] if nocache else []), "-t", "bench", context]]

    def export(self, context):
        return [[self.program, "build", "-o", f"type=oci,dest={self.archive}", context]]

    def expand(self, archive, out):
        return [[self.program, "expand", archive, "-o", out, "--rootfs", "--archive", "none"]]

    def pull(self, name):
        return [[self.program, "pull", "-q", name]]

    def push(self, name):
        return [[self.program, "push", "-q", name]]


class Docker(Tool):
    """Debian's dockerd with the BuildKit it embeds. It has no OCI exporter; `save` writes layers uncompressed."""
    name = "docker"

    def __init__(self, work, bases):
        super().__init__(work)
        os.makedirs(self.dir, exist_ok=True)
        self.bases = bases
        # Debian's client speaks to its own daemon without plugins; another one on PATH may not.
        self.docker = "/usr/bin/docker" if os.path.exists("/usr/bin/docker") else "docker"
        self.env.update(DOCKER_HOST=f"unix://{self.dir}/sock", DOCKER_BUILDKIT="1", DOCKER_CONFIG=self.dir)
        self.log = open(f"{self.dir}/log", "w")
        self.daemon = subprocess.Popen(
            ["dockerd", "--iptables=false", "--bridge=none", f"--data-root={self.dir}/data", f"--exec-root={self.dir}/exec",
             f"--pidfile={self.dir}/pid", f"--host=unix://{self.dir}/sock"], stdout=self.log, stderr=self.log)
        for _ in range(300):
            if quiet(self.docker, "version", env=self.env).returncode == 0:
                break
            time.sleep(0.1)
        else:
            raise OSError(f"dockerd did not start, see {self.dir}/log")

    def clear(self, bases=True):
        quiet(self.docker, "builder", "prune", "-af", env=self.env)
        # Its layers go with the last name of a base: a pull would find them.
        quiet(self.docker, "rmi", "-f", "bench", *self.bases, env=self.env)
        for name, tar in self.bases.items() if bases else ():
            subprocess.run([self.docker, "import", tar, name], env=self.env, check=True, stdout=subprocess.DEVNULL)

    def daemons(self):
        children = open(f"/proc/{self.daemon.pid}/task/{self.daemon.pid}/children").read().split()
        return [self.daemon.pid, *map(int, children)]

    def build(self, context, nocache=False):
        return [[self.docker, "build", "--network=host", *(["--no-cache"] if nocache else []), "-t", "bench", context]]

    def export(self, context):
        return [*self.build(context), [self.docker, "save", "-o", self.archive, "bench"]]

    def close(self):
        self.daemon.terminate()
        self.daemon.wait()
        super().close()


class Buildah(Tool):
    name = "buildah"

    def __init__(self, work, bases):
        super().__init__(work)
        self.bases = bases
        self.buildah = ["buildah", "--root", f"{self.dir}/root", "--runroot", f"{self.dir}/run", "--storage-driver", "overlay"]

    def clear(self, bases=True):
        quiet("umount", f"{self.dir}/root/overlay")
        super().clear()
        for name, tar in self.bases.items() if bases else ():
            container = subprocess.run([*self.buildah, "from", "scratch"], check=True, capture_output=True, text=True).stdout.strip()
            subprocess.run([*self.buildah, "add", "-q", container, tar, "/"], check=True, stdout=subprocess.DEVNULL)
            quiet(*self.buildah, "commit", "-q", "--rm", container, name)

    def build(self, context, nocache=False):
        return [[*self.buildah, "build", "--pull=false", "--tls-verify=false", "--isolation", "chroot", "--network", "host", "--layers",
                 *(["--no-cache"] if nocache else []), "-t", "bench", context]]

    def export(self, context):
        return [*self.build(context), [*self.buildah, "push", "bench", f"oci-archive:{self.archive}"]]

    def close(self):
        quiet("umount", f"{self.dir}/root/overlay")
        super().close()


class Umoci(Tool):
    """Expands only: skopeo turns the archive into a layout, umoci unpacks that."""
    name = "umoci"

    def expand(self, archive, out):
        return [["skopeo", "copy", f"oci-archive:{archive}", f"oci:{self.dir}/layout:bench"],
                ["umoci", "unpack", "--image", f"{self.dir}/layout:bench", out]]


class Skopeo(Tool):
    """Moves images between a registry and a layout folder."""
    name = "skopeo"

    def pull(self, name):
        return [["skopeo", "copy", "-q", "--src-tls-verify=false", f"docker://{name}", f"oci:{self.dir}/layout:bench"]]

    def push(self, name):
        return [["skopeo", "copy", "-q", "--dest-tls-verify=false", f"oci:{self.dir}/layout:bench", f"docker://{name}"]]


class Limit(Tool):
    """The work itself, with no builder around it: what a builder can come near, and not pass."""
    name = "limit"
    CASES = {
        ("w1", "cold"): "for i in 0 1 2 3 4 5 6 7 8 9; do chroot {dir}/root sh -c \"echo step $i > /step$i\"; done",
        ("w2", "change"): "cp -r {context}/Makefile {context}/src {dir}/root && chroot {dir}/root make -s -j2",
        ("w3", "cold"): "cp -r {context}/data {dir} && tar -C {dir} -c data | gzip -1 > {archive}",
        ("w3", "warm"): "find {context} -name node_modules -prune -o -newermt 2000-01-01 -printf ''",
        ("w4", "cold"): "ls {context}/*.bin | xargs -P2 -I% sh -c 'gzip -1 < % > {dir}/$(basename %).gz' && tar -cf {archive} {dir}",
        ("w5", "cold"): "for i in 0 1 2 3 4 5 6 7; do sleep 1 & done; wait",
    }

    def __init__(self, work, bases):
        super().__init__(work)
        self.bases = bases

    def bare(self, load, case, context):
        """What a case comes to, in a shell."""
        if load in ("w1", "w2"):
            self.root("build" if load == "w2" else "busybox")
        else:
            self.clear()
        return [["sh", "-c", self.CASES[load, case].format(context=context, dir=self.dir, archive=self.archive)]]

    def root(self, base):
        """A fresh copy of a base to work in; not in the time."""
        self.clear()
        os.makedirs(f"{self.dir}/root")
        tar = next(tar for tar in self.bases.values() if tar.endswith(f"/{base}.tar"))
        subprocess.run(["tar", "-xpf", tar, "-C", f"{self.dir}/root"], check=True)

class Registry:
    """Debian's docker-registry over a folder. Its own work is the same for all who ask, and counted to nobody."""

    def __init__(self, work):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.host = f"127.0.0.1:{free.getsockname()[1]}"
        self.dir = f"{work}/registry"
        os.makedirs(self.dir)
        with open(f"{self.dir}/config.yml", "w") as f:
            f.write(f"version: 0.1\nlog:\n  level: error\nstorage:\n  filesystem:\n    rootdirectory: {self.dir}/data\n"
                    f"http:\n  addr: {self.host}\n")
        log = open(f"{self.dir}/log", "w")
        env = dict(os.environ, OTEL_TRACES_EXPORTER="none")
        self.daemon = subprocess.Popen(["docker-registry", "serve", f"{self.dir}/config.yml"], stdout=log, stderr=log, env=env)
        for _ in range(200):
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", int(self.host.split(":")[1]))) == 0:
                    return
            time.sleep(0.05)
        raise OSError(f"docker-registry did not start, see {self.dir}/log")

    def named(self, name):
        return f"{self.host}/bench/{name}:1"

    def empty(self):
        """What it has no memory of, it cannot mount from a neighbour either."""
        shutil.rmtree(f"{self.dir}/data")

    def close(self):
        self.daemon.kill()
        self.daemon.wait()
        shutil.rmtree(self.dir, ignore_errors=True)
