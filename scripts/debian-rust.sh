# shellcheck shell=bash
# Sourced by what compiles for another machine with Debian's Rust, which brings its standard library as source. Nothing else has to be fetched for a target then.
#
# Reads `name` (who asks) and `packages`; ends the script, in green and with one line, where they are missing and root cannot install them.

# shellcheck source-path=SCRIPTDIR source=debian-packages.sh
source scripts/debian-packages.sh
# shellcheck disable=SC2154 # what it reads
require_packages "$name" "${packages[@]}"

# Debian's programs by their places: a PATH with rustup's has another version first.
export RUSTC=/usr/bin/rustc RUSTDOC=/usr/bin/rustdoc
# The standard library is built from source, which only unstable options can ask for.
export RUSTC_BOOTSTRAP=1
# Not the toolchain's wrapper or flags of whoever calls.
unset RUSTC_WRAPPER RUSTC_WORKSPACE_WRAPPER RUSTFLAGS CARGO_ENCODED_RUSTFLAGS RUSTUP_TOOLCHAIN
