# dockless builds itself: with docker, with img, or with dockless under those names.
#
#   make demo     the main job on a small monorepo, from nothing, with no daemon and no registry
#   make test     every test; installs what is missing
#   make test-shapes  Dockerfiles as people write them, built with the network and run; for every night
#   make test-oracles  every golden build by buildah too; for every night
#   make test-reach  the same build in every place that dockless knows, all of it
#   make release  the task image, built by dockless and laid out in release/

DOCKER     ?= docker
CARGO      ?= cargo
# A Debian image that the task image is built onto.
BASE       ?= debian:bookworm-slim
IMAGE      ?= dockless/dockless
VERSION    := $(shell sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml | head -n 1)
BUILD_ARGS ?=
FLY_TARGET ?= dev
TASK_IMAGE ?= $(IMAGE)
# For the test programs: a part of a test's name, --show-output.
TEST_ARGS  ?=

HOST       := $(shell rustc -vV | sed -n 's/^host: //p')
BINARY     := target/$(HOST)/release/dockless

.PHONY: all binary docker test test-oracles test-reach test-shapes release clean fly-execute demo lint style bench

all: docker

binary:
	$(CARGO) build --release --locked
	install -D $(BINARY) target/dockless

docker: binary
	$(DOCKER) build --build-arg BASE=$(BASE) $(BUILD_ARGS) -t $(IMAGE):$(VERSION) -t $(IMAGE):latest .

test:
	ci/setup
	$(CARGO) test --locked --no-fail-fast -- $(TEST_ARGS)

test-shapes: binary
	ci/shapes target/dockless

test-oracles:
	ci/setup
	DOCKLESS_ORACLES=all $(CARGO) test --locked --test e2e golden_build -- --show-output

# The same build in every place, all of it: as root, for half an hour. `make test` has the hard core.
test-reach: binary
	ci/setup
	DOCKLESS_REACH=all DOCKLESS_UNDER_TEST=target/dockless $(CARGO) test --locked --test reach -- --nocapture --include-ignored

release: binary
	target/dockless task --rootfs --output release -- $(MAKE) docker

clean:
	rm -rf release

fly-execute: clean
	fly -t $(FLY_TARGET) execute -c task.yml -i src=. -o release=./release --include-ignored -v task_image=$(TASK_IMAGE)

demo:
	ci/setup
	$(MAKE) binary
	ci/demo target/dockless

lint: style
	$(CARGO) clippy --locked --all-targets -- -D warnings

# What of it compiles nothing.
style:
	$(CARGO) fmt --check
	ci/deps
	shellcheck tests/reach/inside tests/reach/killed tests/reach/contained/outside tests/reach/jail/jail
	shellcheck fuzz/run ci/setup ci/s3-server ci/bases ci/shapes ci/demo ci/deps ci/skips ci/instructions .ci/run

# BASE here is a commit, to compare with.
bench:
	$(MAKE) binary
	benches/run --dockless target/dockless $(if $(filter command line,$(origin BASE)),--base $(BASE))
