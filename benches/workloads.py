"""The workloads, made deterministically: every byte depends on the arguments alone, so two machines measure the same."""
import os
import random

BUSYBOX = "dockless.example/busybox:1"
DEBIAN = "dockless.example/debian-build:bookworm"
WORDS = ("layer image build stage cache mount whiteout digest manifest blob "
         "registry overlay snapshot context archive header entry index").split()


def put(path, data):
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "wb") as f:
        f.write(data if isinstance(data, bytes) else data.encode())


def text(rng, size):
    out, n = [], 0
    while n < size:
        word = rng.choice(WORDS)
        out.append(word)
        n += len(word) + 1
    return (" ".join(out) + "\n")[:size].encode()


def steps(folder, count=10):
    """W1: steps that do next to nothing, so that what is measured is the builder."""
    put(f"{folder}/Dockerfile", f"FROM {BUSYBOX}\n" + "".join(f"RUN echo step {i} > /step{i}\n" for i in range(count)))


def project(folder, units=50, debian=DEBIAN, busybox=BUSYBOX):
    """W2: a C project, compiled in one stage and copied into another; the base images are in a registry."""
    for i in range(units):
        rng = random.Random(i)
        functions = []
        for j in range(6):
            lines = "\n".join(
                f"    x = (x * {rng.randrange(3, 1 << 30) | 1}u) ^ (y >> {rng.randrange(1, 31)});"
                f" y += x % {rng.randrange(3, 9999)}u;" for _ in range(24))
            functions.append(f"static unsigned f{i}_{j}(unsigned x, unsigned y) {{\n{lines}\n    return x;\n}}\n")
        calls = "\n".join(f"    r += f{i}_{j}(r, a + {j});" for j in range(6))
        put(f"{folder}/src/unit{i:03}.c",
            "".join(functions) + f"unsigned unit{i}(unsigned a) {{\n    unsigned r = a;\n{calls}\n    return r;\n}}\n")
    declared = "\n".join(f"unsigned unit{i}(unsigned);" for i in range(units))
    summed = "\n".join(f"    s += unit{i}(s);" for i in range(units))
    put(f"{folder}/src/main.c", f"#include <stdio.h>\n{declared}\nint main(void) {{\n    unsigned s = 1;\n{summed}\n"
        '    printf("%u\\n", s);\n    return 0;\n}\n')
    put(f"{folder}/Makefile", "OBJ := $(patsubst %.c,%.o,$(wildcard src/*.c))\n"
        "app: $(OBJ)\n\tgcc -static -O2 -o $@ $^\n%.o: %.c\n\tgcc -O2 -c -o $@ $<\n")
    put(f"{folder}/Dockerfile",
        f"FROM {debian} AS build\nWORKDIR /build\nCOPY Makefile .\nCOPY src src\nRUN make -j2\n"
        f"FROM {busybox}\nCOPY --from=build /build/app /bin/app\nRUN /bin/app > /answer\nENTRYPOINT [\"/bin/app\"]\n")


def files(folder, count=20000):
    """W3: many small files, a fifth as many beside them that the ignore file hides."""
    rng = random.Random(1)
    pool = text(rng, 1 << 16)
    for i in range(count):
        size, at = 100 + (i * 7919) % 1900, (i * 104729) % 60000
        put(f"{folder}/data/d{i // 100:04}/f{i:06}.txt", b"%d\n" % i + pool[at:at + size])
    for i in range(count // 5):
        put(f"{folder}/node_modules/p{i // 100:04}/f{i:06}.js", b"%d\n" % i + pool[:200])
    put(f"{folder}/.dockerignore", "node_modules\n**/*.log\n")
    put(f"{folder}/Dockerfile", f"FROM {BUSYBOX}\nCOPY . /srv\nRUN touch /srv/data/d0000/f000000.txt\n")


def big(folder, mib=2048, layers=3):
    """W4: data that compresses to half, in a few large files."""
    os.makedirs(folder, exist_ok=True)
    for n in range(layers):
        rng = random.Random(1000 + n)
        with open(f"{folder}/blob{n}.bin", "wb") as f:
            for _ in range(mib // layers * 16):
                f.write(rng.randbytes(32 << 10) + text(rng, 4 << 10) * 8)
    put(f"{folder}/Dockerfile", f"FROM {BUSYBOX}\n" +
        "".join(f"COPY blob{n}.bin /big/blob{n}.bin\n" for n in range(layers)))


def fan(folder, stages=8, seconds=1):
    """W5: stages that do not need each other."""
    lines = "".join(f"FROM {BUSYBOX} AS s{i}\nRUN sleep {seconds} && echo {i} > /out{i}\n" for i in range(stages))
    lines += f"FROM {BUSYBOX}\n" + "".join(f"COPY --from=s{i} /out{i} /out{i}\n" for i in range(stages))
    put(f"{folder}/Dockerfile", lines)


def monorepo(folder, images=8):
    """W9: images of one repository that share their first stages."""
    put(f"{folder}/src/shared.txt", "shared\n")
    for i in range(images):
        put(f"{folder}/src/{i}.txt", f"{i}\n")
    lines = f"FROM {BUSYBOX} AS tools\nRUN sleep 0.5 && echo tools > /tools\n"
    lines += "FROM tools AS shared\nCOPY src/shared.txt /\nRUN sleep 0.5 && cat /shared.txt /tools > /made\n"
    lines += "FROM shared\nARG WHICH\nCOPY src/${WHICH}.txt /own\nRUN sleep 0.2 && cat /own >> /made\n"
    put(f"{folder}/Dockerfile", lines)
    targets = " ".join(f"i{i}" for i in range(images))
    put(f"{folder}/Makefile", f"all: {targets}\n" +
        "i%:\n\t$(DOCKER) build -q --build-arg WHICH=$* -t bench/$@ .\n.PHONY: all\n")
