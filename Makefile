# One door to everything. `make help` lists it; each target sets up what it needs.

# The base interpreter of .venv.
PYTHON ?= python3
# How long `make fuzz` fuzzes, in seconds for each target.
SECONDS ?= 60
# How long `make soak` lasts.
SOAK_SECONDS ?= 600
# How many worlds `make simulate` lives through, and which one `make sim` shows.
SEEDS ?= 100000
SEED ?= 0
# The name that `make image` gives.
IMAGE ?= code-explainer:dev

# Of bench-peers and bench-quality, where they are given.
export ROUNDS MINUTES QUICK POSITIONS
# Of bench-attacks: another build of the server, attacked as well; and parts of the names of the attacks to run.
export BEFORE ONLY

export PYTHON
.DEFAULT_GOAL := help
# The steps share cargo's lock and the machine's cores, and the quick ones come first.
.NOTPARALLEL:
.PHONY: help setup setup-run build demo test fmt lint chart bench bench-attacks bench-cache bench-embed bench-engine bench-fairness bench-peers bench-quality fuzz fuzz-cost soak sim simulate image reference check-cuda clean distclean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  %-13s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)
	@printf '\nLIBTORCH, CODE_EXPLAINER_MODEL and PYTHON of your own are respected.\n'

setup: ## fetch libtorch, the model and the tools of the tests (only what is missing)
	@scripts/setup.sh all

setup-run:
	@scripts/setup.sh run

# Only --release, everywhere: the tests run a real model, and a second profile would compile libtorch's bindings again.
build: setup-run ## compile the server and the client
	cargo build --release --locked --workspace

demo: build ## start the server, explain three files with it, stop it
	@scripts/demo.sh

test: setup ## everything that must hold: lint, chart, unit and behaviour tests
	@scripts/test.sh

fmt: ## format the Rust sources
	cargo fmt --all

lint: setup ## rustfmt, clippy, cargo deny, buf, shellcheck, yamllint, hadolint
	@scripts/lint.sh all

chart: setup ## lint and render the Helm chart and check what it renders
	@scripts/chart.sh

bench: setup-run ## micro-benchmarks (criterion)
	cargo bench --locked

bench-attacks: setup-run build ## attacks on a whole server, and what its neighbours see of them; 14 minutes; BEFORE=server-binary ONLY=
	ulimit -Sn 8192 2>/dev/null || ulimit -Sn $$(ulimit -Hn); cargo bench --locked --bench attacks

bench-cache: setup-run ## the cache: look-ups beside moka, hits over gRPC beside a bare server, hit rates beside the optimum
	cargo bench --locked --bench cache_lookups -- --quiet
	cargo bench --locked --bench cache

bench-engine: setup-run ## the native engine against this machine's limits, by operator, batch and precision; 4 minutes
	cargo bench --locked --bench engine

bench-fairness: setup-run ## time to first token beside a flood of another tenant
	cargo bench --locked --bench fairness

# Both install the other engines into .venv-peers the first time (6 GB, 15 minutes).
bench-peers: setup-run ## side by side with llama.cpp, OpenVINO GenAI and transformers; ROUNDS=3 MINUTES=15 QUICK=
	@$(PYTHON) benches/peers/peers.py

bench-quality: setup-run ## what each precision costs in quality, beside llama.cpp; POSITIONS=2400
	@$(PYTHON) benches/peers/quality.py

bench-embed: setup-run ## embeddings a second, cache hits, recall of the index; beside transformers where `make reference` ran
	cargo bench --locked --bench embed

fuzz: setup-run ## fuzz the readers of model files, and both protocols; SECONDS=60
	@scripts/fuzz.sh $(SECONDS)

fuzz-cost: setup-run ## look for texts that cost far more CPU time a byte than code does; SECONDS=60
	cargo bench --locked --bench cost -- $(SECONDS)

soak: setup-run ## bad and good clients for ten minutes, memory flat from the second minute on; SOAK_SECONDS=600
	@scripts/soak.sh $(SOAK_SECONDS)

sim: setup-run ## one world of the simulation, with its history; SEED=0
	SIM_SEED=$(SEED) cargo test --release --locked --test simulation

simulate: setup-run ## the whole server in simulated time, in many worlds; SEEDS=100000
	SIM_SEEDS=$(SEEDS) cargo test --release --locked --test simulation

image: ## build the container image with docker, podman or buildah; IMAGE=name:tag
	@scripts/image.sh $(IMAGE)

reference: setup-run ## make tests/data again with transformers and PyTorch (several GB)
	@scripts/reference.sh

check-cuda: setup-run ## build with CUDA graphs against the CUDA build of libtorch, no GPU needed (6 GB)
	@scripts/check-cuda.sh

clean: ## remove what was compiled
	cargo clean
	rm -rf .cuda/target

distclean: clean ## remove also what was fetched
	rm -rf .libtorch .cuda models .venv .venv-reference .venv-peers .tools tests/clients/node/node_modules
