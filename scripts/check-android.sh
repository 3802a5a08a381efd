#!/usr/bin/env bash
# Android: do the kernels and the agent type-check for aarch64-linux-android? Links nothing and runs nothing there.
#
# No registry client brings the NDK or Android's standard library. Debian brings the source of the standard library with a
# compiler of the same version (rustc-web, cargo-web, rust-web-src), so that the library is checked along with our crates.
# C in dependencies (ring) is compiled by clang, with Debian's headers for arm64 in place of Android's: enough to compile,
# not to link. Without these packages, and unless root can install them, one line says that the check was skipped.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

readonly CRATES=(polyphony-kernels polyphony-model polyphony-protocol polyphony-agent)
readonly TRIPLE=aarch64-linux-android
# Android 7.0, the first with Vulkan.
readonly API_LEVEL=24
readonly INCLUDES=/usr/aarch64-linux-gnu/include

name=check-android
packages=(rustc-web cargo-web rust-web-src clang libc6-dev-arm64-cross linux-libc-dev-arm64-cross)
# shellcheck source-path=SCRIPTDIR source=debian-rust.sh
source scripts/debian-rust.sh
# A folder of its own: another compiler would otherwise drive out what `make build` built.
export CARGO_TARGET_DIR=${CARGO_TARGET_DIR:-target}/android
export CC_aarch64_linux_android=clang AR_aarch64_linux_android=ar
export CFLAGS_aarch64_linux_android="--target=$TRIPLE$API_LEVEL -isystem $INCLUDES"

# Nothing is run but build scripts and macros, once: time spent on making them fast is lost.
/usr/bin/cargo check --locked --target "$TRIPLE" -Z build-std=std,panic_abort \
    --config 'profile.dev.opt-level=0' --config 'profile.dev.package."*".opt-level=0' --config 'profile.dev.debug=false' \
    "${CRATES[@]/#/--package=}"
printf 'check-android: %s type-check for %s, API level %s\n' "${CRATES[*]}" "$TRIPLE" "$API_LEVEL"
