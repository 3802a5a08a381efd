#!/usr/bin/env bash
# Tests of rings with the agent that `make android` built, on a stand-in for Android's C library: node-agent/android/stand-in, on musl. A PC's
# build runs as it is, an ARM phone's by an emulator (Debian's qemu-user) as a processor with dot products of bytes. The host is this machine's.
#
#   scripts/test-android.sh [ABI] [TEST…]     x86_64 without an ABI, and those tests whose names hold one of TEST
#
# It tells that the program starts, joins by a token over TLS, loads models, and computes what the reference does. It tells nothing of bionic,
# of Android's loader, DNS, permissions and drivers, or of speed.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

# Has dot products of bytes, and no products of matrices of them: what phones of 2018 to 2021 have.
readonly PROCESSOR=cortex-a76
# One golden file of a real model and those of small ones of every family, at every split; and sessions that move.
readonly OF_PC=(answers::one_two answers::models_of moves::)
readonly OF_PHONE=(answers::models_of)

abi=${1:-x86_64}
shift || true
case $abi in
    x86_64) arch=x86_64 tests=("${OF_PC[@]}") packages=() ;;
    arm64-v8a) arch=aarch64 tests=("${OF_PHONE[@]}") packages=(qemu-user) ;;
    *) printf 'test-android: no ABI is called %s: arm64-v8a or x86_64\n' "$abi" >&2; exit 2 ;;
esac
(($# == 0)) || tests=("$@")
target=$(realpath -m "${CARGO_TARGET_DIR:-target}")
base=$target/android
# shellcheck source-path=SCRIPTDIR source=android-agent.sh
source scripts/android-agent.sh
require_agent test-android "$base" "$abi"
unshare --mount true 2>/dev/null ||
    { printf 'skipped: test-android needs root that may make mount namespaces, to put a loader at /system for as long as it runs\n'; exit 0; }

# shellcheck source-path=SCRIPTDIR source=debian-packages.sh
source scripts/debian-packages.sh
# shellcheck source-path=SCRIPTDIR source=android-stand-in.sh
source scripts/android-stand-in.sh
((${#packages[@]} == 0)) || require_packages test-android "${packages[@]}"
build_stand_in test-android "$base" "$arch"
stand_in=$base/stand-in/$arch

# Where tests find the programs beside them: the host's, and a phone's.
unset CARGO_TARGET_DIR
[[ $target == "$(pwd)/target" ]] || export CARGO_TARGET_DIR=$target
cargo build --workspace --bins
cargo test --workspace --no-run
program=$(cargo test --workspace --no-run --message-format json 2>/dev/null |
    sed -n 's|.*"manifest_path":"[^"]*/e2e/Cargo.toml".*"name":"it".*"executable":"\([^"]*\)".*|\1|p')
[[ -x $program ]] || { printf 'test-android: cargo did not say where it has put the tests\n' >&2; exit 1; }
beside=$base/beside/$abi
mkdir -p "$beside/deps"
ln -f "$program" "$beside/deps/it"
for each in polyctl polyphony-controller; do ln -f "$target/debug/$each" "$beside/$each"; done
environment="LD_PRELOAD=/system/lib64/bionic.so LD_LIBRARY_PATH=/system/lib64"
if [[ $arch == aarch64 ]]; then
    run="qemu-aarch64 -cpu $PROCESSOR -L $stand_in -E LD_PRELOAD=/system/lib64/bionic.so -E LD_LIBRARY_PATH=/system/lib64"
else
    run="env $environment"
fi
printf '#!/bin/sh\nexec %s %s "$@"\n' "$run" "$base/$abi/polyphony-agent" >"$beside/polyphony-agent"
chmod +x "$beside/polyphony-agent"

# A test of another name, or one that skips, tests nothing.
export POLYPHONY_NO_SKIP=1
for each in "${tests[@]}"; do
    "$beside/deps/it" --list "$each" 2>/dev/null | grep ': test$' >/dev/null || { printf 'test-android: no test is called %s\n' "$each" >&2; exit 1; }
done

mkdir -p /system
trap 'rmdir /system 2>/dev/null || true' EXIT
cd e2e
# Only what is started here sees the stand-in.
# shellcheck disable=SC2016 # for the shell inside
unshare --mount sh -c 'mount --bind "$1" /system && shift && exec "$@"' sh "$stand_in/system" "$beside/deps/it" "${tests[@]}"
printf 'test-android: %s on a stand-in for its C library, not on Android\n' "$abi"
