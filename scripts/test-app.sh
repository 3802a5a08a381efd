#!/usr/bin/env bash
# The app's agent as Java calls it: builds the library for this machine, and has a real Java machine join a host by it, take part, pause and leave.
# It is OpenJDK, not Android's: what is shown is that both sides of the interface fit, and nothing of Android's services.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

# shellcheck source-path=SCRIPTDIR source=debian-packages.sh
source scripts/debian-packages.sh
require_packages test-app openjdk-17-jdk-headless
[[ $(id -u) == 0 ]] || { printf 'skipped: test-app needs root, to make network namespaces\n'; exit 0; }

cargo build --workspace --bins --lib
POLYPHONY_APP_LIBRARY=$(realpath "${CARGO_TARGET_DIR:-target}/debug/libpolyphony_app.so")
export POLYPHONY_APP_LIBRARY POLYPHONY_NO_SKIP=1
said=$(mktemp)
trap 'rm -f -- "$said"' EXIT
cargo test --workspace --test it -- --ignored app:: 2>&1 | tee "$said"
# A test that is not there is none that passed.
grep -q '^test app::.* ok$' "$said"
