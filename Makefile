# Polyphony: one word for each thing that is done here. `make` alone lists them.

SHELL := /bin/bash
.DEFAULT_GOAL := help
.PHONY: android apk bench bench-hub bench-lab bench-peers bench-peers-avx2 bloom build cheap-phones check check-android check-chart check-workflows clippy crds day demo docs docs-fields e2e-android fmt fuzz help phones phones-down setup setup-tests test test-android test-android-arm test-app test-arm test-cheap-phones test-phones test-swiftshader

# Where set-up keeps what it fetches; the tests look there as well.
CACHE_HOME := $(or $(XDG_CACHE_HOME),$(HOME)/.cache)
export POLYPHONY_CACHE ?= $(CACHE_HOME)/polyphony
# A BLOOM of random weights, to try that family's sizes with.
RANDOM_BLOOM = $(POLYPHONY_CACHE)/models/random-bloom-24x512.Q8_0.gguf
# A Llama with hardly any vocabulary, to see what long contexts cost.
RANDOM_LLAMA = $(POLYPHONY_CACHE)/models/random-llama-8x1024.Q8_0.gguf
# Mesa's device picker complains about missing desktops; nothing here has one.
export NODEVICE_SELECT := 1

help: ## list what there is
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / { printf "make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: ## fetch what the demo needs: a Vulkan driver and the model; quick when nothing is missing
	@scripts/setup.sh demo

setup-tests: ## setup, and what only tests need: kubectl, Prometheus and the openai package
	@scripts/setup.sh tests

bloom: ## write a BLOOM of random weights (24 layers, hidden 512) beside the fetched models
	@mkdir -p $(dir $(RANDOM_BLOOM))
	cargo run --example random_model -- bloom $(RANDOM_BLOOM) 24 512 8 8192

build: ## build the three programs
	cargo build --workspace --bins

demo: setup build ## run a real model over three agents and ask it a question
	@scripts/demo.sh

bench: setup build ## measure speed in under ten minutes: a table and target/bench/report.json; BENCH_QUICK=1 is short
	cargo build --workspace --example matvec_speed --example round_at_rest
	cargo bench --workspace --bench speed --profile dev

bench-lab: setup build bloom ## measure the strategies on labs of uneven phones, as root, in under 75 minutes; BENCH_LAB_QUICK=1 is short
	cargo bench --workspace --bench lab --profile dev

day: ## a simulated day of 20 phones, by what the product decides: with their limits, without, and at rest
	cargo run --example day

bench-hub: setup build ## what the door costs: sealed hops, ways over the hub, a sealed ring, a thousand phones on one hub; 8 minutes
	cargo build --workspace --example plain_ring_agent
	cargo bench --workspace --bench hub --profile dev

bench-peers: setup-tests build ## decode beside llama.cpp, which it builds first (15 minutes, once), as ratios, and as root three phones beside its RPC; BENCH_QUICK=1 is short
	scripts/peers.sh
	cargo build --workspace --example matvec_speed
	cargo run --example random_model -- llama $(RANDOM_LLAMA) 8 1024 16 1024
	cargo bench --workspace --bench peers --profile dev

bench-peers-avx2: setup-tests build ## the same with both kept to AVX2
	scripts/peers.sh avx2
	cargo run --example random_model -- llama $(RANDOM_LLAMA) 8 1024 16 1024
	POLYPHONY_LANES=avx2 BENCH_ONLY=thread cargo bench --workspace --bench peers --profile dev

test: setup-tests build ## run every test; with POLYPHONY_NO_SKIP=1 what this machine cannot run fails instead of being skipped
	cargo test --workspace

check: fmt clippy docs test test-arm test-swiftshader check-chart ## everything that has to pass

fmt: ## is the code formatted?
	cargo fmt --all --check

clippy: ## lints, warnings denied
	cargo clippy --workspace --all-targets -- -D warnings

docs: ## documentation, warnings denied
	RUSTDOCFLAGS="-D warnings" cargo doc --workspace --no-deps

check-chart: ## render the Helm chart and judge every object
	@scripts/setup.sh chart
	@scripts/check-chart.sh

check-workflows: ## read the workflows for GitHub as GitHub would, and as an attacker; nothing here runs them
	@scripts/setup.sh workflows
	@scripts/check-workflows.sh

fuzz: setup ## feed the readers of model files, frames, requests and bodies what a fuzzer makes of good ones, ten minutes each of nine targets
	@scripts/fuzz.sh

test-arm: ## the kernels' tests as three ARM processors, by an emulator, and the instructions of a product; skipped without Debian's packages
	@scripts/test-arm.sh

test-swiftshader: ## the kernels' tests on the Vulkan driver that Android's emulators have; skipped without Debian's package
	@scripts/test-swiftshader.sh

android: ## build the agent for Android (arm64-v8a, x86_64), by the NDK of ANDROID_NDK_HOME or else by Debian's compilers; slow the first time
	@scripts/android.sh

test-android: setup-tests ## tests of rings with the agent of `make android` for PCs, on a stand-in for Android's C library, as root
	@scripts/test-android.sh x86_64

test-android-arm: setup-tests ## a test of rings with the one for phones, on the same and an emulator of a processor; slow
	@scripts/test-android.sh arm64-v8a

apk: ## pack the Android app with what `make android` built, and look at what came of it; never run on a phone yet
	@scripts/apk.sh

test-app: setup-tests build ## the app's agent as Java calls it, from a real Java machine, which is not Android's; as root
	@scripts/test-app.sh

e2e-android: setup-tests ## rings over adb, as root: on the devices of POLYPHONY_ANDROID_SERIALS, or on four cheap phones with the real adbd; after `make android`
	@scripts/e2e-android.sh

cheap-phones: ## start four cheap phones for adb, as root; `scripts/cheap-phones.sh down` ends them
	@scripts/cheap-phones.sh up 4

test-cheap-phones: ## are cheap phones what they are said to be? who they are, who reaches them, what is left of them; as root; half a minute
	@scripts/test-cheap-phones.sh

check-android: ## would Android 7.0 and later load what `make android` built?
	@scripts/check-android.sh

phones: ## start two emulated arm64 phones, or N=…, that adb reaches, and print their serials; not Android: docs/android.md; slow the first time
	@scripts/phones.sh up $(or $(N),2)

phones-down: ## end them
	@scripts/phones.sh down

test-phones: ## are emulated phones what they are said to be? battery, heat, reboot, loss, a full disk; a minute
	@scripts/test-phones.sh

crds: docs-fields ## write manifests/crds and the field reference from the resource types
	cargo run --example crds manifests/crds

docs-fields: ## write docs/manifests.md from the resource types
	cargo run --example fields docs/manifests.md manifests/smollm2.yaml
