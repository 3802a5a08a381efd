#!/usr/bin/env bash
# Android: do the kernels and the agent type-check for aarch64-linux-android? Links nothing and runs nothing there.
#
# No registry client brings the NDK or Android's standard library. Debian brings the source of the standard library with a
# compiler of the same version (rustc-web, cargo-web, rust-web-src), so that the library is checked along with our crates.
# C in dependencies (ring) is compiled by clang, with Debian's headers for arm64 in place of Android's: enough to compile,
# not to link. Without these packages, and unless root can install them, one line says that the check was skipped.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

readonly PACKAGES=(rustc-web cargo-web rust-web-src clang libc6-dev-arm64-cross linux-libc-dev-arm64-cross)
readonly CRATES=(polyphony-kernels polyphony-model polyphony-protocol polyphony-agent)
readonly TRIPLE=aarch64-linux-android
# Android 7.0, the first with Vulkan.
readonly API_LEVEL=24
readonly INCLUDES=/usr/aarch64-linux-gnu/include

log=$(mktemp)
trap 'rm -f -- "$log"' EXIT

# The compiler that the workspace asks for at least: Debian has older ones under the same name.
least=$(sed -n 's/^rust-version = "\(.*\)"$/\1/p' Cargo.toml)
readonly least

missing_packages() {
    local package status version
    for package in "${PACKAGES[@]}"; do
        read -r status version <<<"$(dpkg-query --show --showformat '${db:Status-Status} ${Version}' "$package" 2>/dev/null)" || true
        if [[ $status != installed ]] || { [[ $package == *-web* ]] && dpkg --compare-versions "$version" lt "$least"; }; then
            printf '%s ' "$package"
        fi
    done
}

install_missing() {
    local missing=$1
    [[ $(id -u) == 0 ]] && command -v apt-get >/dev/null || return 1
    printf 'check-android: installing %sby apt-get\n' "$missing" >&2
    # shellcheck disable=SC2086 # several words on purpose
    local install=(env DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-remove --no-install-recommends $missing)
    # A fresh machine has no package lists yet, an old one has outdated ones, which name older compilers.
    apt-get update -q >"$log" 2>&1 && "${install[@]}" >"$log" 2>&1 && [[ -z $(missing_packages) ]]
}

missing=$(missing_packages)
if [[ -n $missing ]] && ! install_missing "$missing"; then
    why=$(tail -n 1 "$log")
    printf 'skipped: check-android needs %s%s: `apt-get install %s` as root, on Debian 12\n' "${missing% }" "${why:+ ($why)}" "${missing% }"
    exit 0
fi

# Debian's programs by their places: a PATH with rustup's has another version first.
export RUSTC=/usr/bin/rustc RUSTDOC=/usr/bin/rustdoc
# The standard library is built from source, which only unstable options can ask for.
export RUSTC_BOOTSTRAP=1
# Not the toolchain's wrapper or flags of whoever calls.
unset RUSTC_WRAPPER RUSTC_WORKSPACE_WRAPPER RUSTFLAGS CARGO_ENCODED_RUSTFLAGS RUSTUP_TOOLCHAIN
# A folder of its own: another compiler would otherwise drive out what `make build` built.
export CARGO_TARGET_DIR=${CARGO_TARGET_DIR:-target}/android
export CC_aarch64_linux_android=clang AR_aarch64_linux_android=ar
export CFLAGS_aarch64_linux_android="--target=$TRIPLE$API_LEVEL -isystem $INCLUDES"

# Nothing is run but build scripts and macros, once: time spent on making them fast is lost.
/usr/bin/cargo check --locked --target "$TRIPLE" -Z build-std=std,panic_abort \
    --config 'profile.dev.opt-level=0' --config 'profile.dev.package."*".opt-level=0' --config 'profile.dev.debug=false' \
    "${CRATES[@]/#/--package=}"
printf 'check-android: %s type-check for %s, API level %s\n' "${CRATES[*]}" "$TRIPLE" "$API_LEVEL"
