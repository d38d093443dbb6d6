"""The builders that are compared: how each is emptied, and the commands that it builds, exports and expands with."""
import json
import os
import shutil
import socket
import subprocess
import tarfile
import time

TICK = os.sysconf("SC_CLK_TCK")


def quiet(*command, **kwargs):
    return subprocess.run(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, **kwargs)


def host_of(bases):
    """The registry that the names of bases speak of, which nobody has."""
    return next(iter(bases)).split("/")[0]


def smallest(bases):
    """The base that the loads build on, but for those that have a registry."""
    return min(bases, key=lambda name: os.path.getsize(bases[name]))


def cpu_of(pid):
    fields = open(f"/proc/{pid}/stat").read().rsplit(")", 1)[1].split()
    return sum(map(int, fields[11:15])) / TICK


class Tool:
    """One builder: how it is emptied, and the command that builds a context."""
    name = ""
    # Whether it takes bases from a registry on this machine.
    pulls = True

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


class Buildkit(Tool):
    """buildkitd on its own and buildctl. It keeps no image under a name: a build without an output leaves snapshots, and
    bases come from a registry on this machine."""
    name = "buildkit"

    def __init__(self, work, bases, registry):
        super().__init__(work)
        os.makedirs(self.dir, exist_ok=True)
        self.bases = bases
        self.buildctl = ["buildctl", "--addr", f"unix://{self.dir}/sock"]
        with open(f"{self.dir}/config.toml", "w") as f:
            f.write(f'root = "{self.dir}/root"\n[grpc]\naddress = ["unix://{self.dir}/sock"]\n[worker.containerd]\nenabled = false\n'
                    f'[registry."{host_of(bases)}"]\nmirrors = ["{registry.host}"]\n[registry."{registry.host}"]\nhttp = true\n')
        self.log = open(f"{self.dir}/log", "w")
        self.daemon = subprocess.Popen(["buildkitd", "--config", f"{self.dir}/config.toml"], stdout=self.log, stderr=self.log)
        for _ in range(300):
            if quiet(*self.buildctl, "debug", "workers").returncode == 0:
                break
            time.sleep(0.1)
        else:
            raise OSError(f"buildkitd did not start, see {self.dir}/log")

    def clear(self, bases=True):
        quiet(*self.buildctl, "prune", "--all")
        if bases:
            # Fetched and unpacked by a step that uses it.
            os.makedirs(f"{self.dir}/base", exist_ok=True)
            with open(f"{self.dir}/base/Dockerfile", "w") as f:
                f.write(f"FROM {smallest(self.bases)}\nRUN true\n")
            subprocess.run(self.build(f"{self.dir}/base")[0], check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    def daemons(self):
        return [self.daemon.pid]

    def build(self, context, nocache=False):
        return [[*self.buildctl, "build", "--progress=plain", "--frontend=dockerfile.v0", f"--local=context={context}",
                 f"--local=dockerfile={context}", *(["--no-cache"] if nocache else [])]]

    def export(self, context):
        return [[*self.build(context)[0], f"--output=type=oci,dest={self.archive}"]]

    def close(self):
        self.daemon.terminate()
        self.daemon.wait()
        super().close()


class Img(Tool):
    """img speaks only TLS to a registry: its bases are built into its store, and it sits out what pulls them. Every build
    is exported and compressed into that store."""
    name = "img"
    pulls = False

    def __init__(self, work, bases):
        super().__init__(work)
        self.bases = bases

    def command(self, verb, *arguments):
        return ["img", verb, "--state", f"{self.dir}/state", "--backend", "overlayfs", *arguments]

    def clear(self, bases=True):
        super().clear()
        if bases:
            name, folder = smallest(self.bases), f"{self.dir}/base"
            os.makedirs(f"{folder}/root")
            subprocess.run(["tar", "-xpf", self.bases[name], "-C", f"{folder}/root"], check=True)
            with open(f"{folder}/Dockerfile", "w") as f:
                f.write("FROM scratch\nCOPY root/ /\n")
            subprocess.run(self.command("build", "--no-console", "-t", name, folder), check=True, stdout=subprocess.DEVNULL,
                           stderr=subprocess.DEVNULL)
            shutil.rmtree(folder)

    def build(self, context, nocache=False):
        return [self.command("build", "--no-console", *(["--no-cache"] if nocache else []), "-t", "bench", context)]

    def export(self, context):
        return [self.command("build", "--no-console", "-o", f"type=oci,dest={self.archive}", "-t", "bench", context)]


class Kaniko(Tool):
    """kaniko's executor, which takes the root that it runs in apart: a folder of its own, in namespaces that end with it. It
    keeps nothing between builds, so that each is one from nothing."""
    name = "kaniko"
    ROOT = """set -eu
root=$1 context=$2 out=$3 executor=$4
shift 4
rm -rf "$root"
mkdir -p "$root/kaniko/.docker" "$root/workspace" "$root/out" "$root/proc" "$root/dev" "$root/etc" "$root/tmp"
mount --bind "$root" "$root"
touch "$root/kaniko/executor"
mount --bind "$executor" "$root/kaniko/executor"
echo '{}' > "$root/kaniko/.docker/config.json"
mount --bind "$context" "$root/workspace"
mount -o remount,bind,ro "$root/workspace"
mount --bind "$out" "$root/out"
mount -t proc proc "$root/proc"
mount -t tmpfs tmpfs "$root/dev"
for device in null:3 zero:5 full:7 random:8 urandom:9; do
    mknod -m 666 "$root/dev/${device%:*}" c 1 "${device#*:}"
done
for file in hosts resolv.conf; do
    touch "$root/etc/$file"
    mount --bind "/etc/$file" "$root/etc/$file"
done
export HOME=/root PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin:/kaniko DOCKER_CONFIG=/kaniko/.docker
exec chroot "$root" /kaniko/executor --force --context dir:///workspace --dockerfile /workspace/Dockerfile "$@"
"""

    def __init__(self, work, bases, registry):
        super().__init__(work)
        self.map = f"{host_of(bases)}={registry.host}"

    def clear(self, bases=True):
        super().clear()
        os.makedirs(f"{self.dir}/out")

    def run(self, context, *arguments):
        return ["unshare", "--mount", "--pid", "--fork", "--kill-child", "--propagation", "private", "sh", "-c", self.ROOT, "sh",
                f"{self.dir}/root", context, f"{self.dir}/out", shutil.which("executor"), f"--registry-map={self.map}", "--no-push",
                *arguments]

    def build(self, context, nocache=False):
        return [self.run(context)]

    def export(self, context):
        return [self.run(context, "--tar-path=/out/bench.tar", "--destination=bench:latest"),
                ["mv", f"{self.dir}/out/bench.tar", self.archive]]


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


class Crane(Tool):
    """Moves images between a registry and a layout folder; its export of a docker archive is for tar to lay out."""
    name = "crane"

    def expand(self, archive, out):
        return [["sh", "-c", 'mkdir -p "$2" && crane export - - < "$1" | tar -xp -C "$2"', "sh", archive, out]]

    def pull(self, name):
        return [["crane", "pull", "--format=oci", name, f"{self.dir}/layout"]]

    def push(self, name):
        return [["crane", "push", f"{self.dir}/layout", name]]


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

    def expand(self, archive, out):
        """An archive's layers inflated and laid out one after another, whiteouts and all: inflating on one core, tar on another."""
        with tarfile.open(archive) as tar:
            names = set(tar.getnames())
            read = lambda name: json.load(tar.extractfile(name))
            if "manifest.json" in names:
                layers = read("manifest.json")[0]["Layers"]
            else:
                blob = lambda descriptor: "blobs/" + descriptor["digest"].replace(":", "/")
                layers = [blob(layer) for layer in read(blob(read("index.json")["manifests"][0]))["layers"]]
            start = tar.extractfile(layers[0]).read(4)
        gzip = next(program for program in ("igzip", "pigz", "gzip") if shutil.which(program))
        inflate = {b"\x1f\x8b": f"{gzip} -dc", b"\x28\xb5": "zstd -dc"}.get(start[:2], "cat")
        lines = [f"tar -xOf {archive} {layer} | {inflate} | tar -xp -C {out}" for layer in layers]
        return [["sh", "-c", " && ".join([f"mkdir -p {out}", *lines])]]

    def root(self, base):
        """A fresh copy of a base to work in; not in the time."""
        self.clear()
        os.makedirs(f"{self.dir}/root")
        tar = next(tar for tar in self.bases.values() if tar.endswith(f"/{base}.tar"))
        subprocess.run(["tar", "-xpf", tar, "-C", f"{self.dir}/root"], check=True)


class Registry:
    """Debian's docker-registry over a folder. Its own work is the same for all who ask, and counted to nobody."""

    def __init__(self, work, name="registry"):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.host = f"127.0.0.1:{free.getsockname()[1]}"
        self.dir = f"{work}/{name}"
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
