#!/usr/bin/env bash
# ARM: the kernels' tests, compiled for 64-bit ARM and run by an emulator (Debian's qemu-user) as three processors: one that multiplies
# matrices of bytes (i8mm), one with dot products of bytes alone, one with neither. What it tells is bits, and how many instructions a
# product takes; an emulator says nothing of speed.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

readonly TRIPLE=aarch64-unknown-linux-gnu
# The processor, and the way of 8 bits that it has to take.
readonly PROCESSORS=("max i8mm" "cortex-a76 dotprod" "cortex-a72 neon")
# A matrix of Q4_0 of so many outputs and inputs, large enough that what is done once a step hardly shows.
readonly COUNTED=(Q4_0 512 2048)

name=test-arm
packages=(rustc-web cargo-web rust-web-src gcc-aarch64-linux-gnu libc6-dev-arm64-cross qemu-user)
# shellcheck source-path=SCRIPTDIR source=debian-rust.sh
source scripts/debian-rust.sh

# A folder of its own: another compiler would otherwise drive out what `make build` built.
export CARGO_TARGET_DIR=${CARGO_TARGET_DIR:-target}/arm
export CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_LINKER=aarch64-linux-gnu-gcc
cargo=(/usr/bin/cargo)
options=(--locked --target "$TRIPLE" -Z "build-std=std,panic_unwind,test" --package polyphony-kernels)

"${cargo[@]}" test --no-run "${options[@]}" --lib --test it
"${cargo[@]}" build "${options[@]}" --example counted_product
# Their places, now that all is built.
programs() { "${cargo[@]}" "$@" --message-format json "${options[@]}" 2>/dev/null | sed -n 's/.*"executable":"\([^"]*\)".*/\1/p'; }
mapfile -t tests < <(programs test --no-run --lib --test it)
counted=$(programs build --example counted_product)
[[ ${#tests[@]} == 2 && -x $counted ]] || { printf 'test-arm: cargo did not say where it has put the tests\n' >&2; exit 1; }
emulated() { qemu-aarch64 -L /usr/aarch64-linux-gnu -cpu "$@"; }

# Instructions of a run with so many products.
instructions() { emulated "$1" -singlestep -d exec,nochain -D /dev/stdout "$counted" "${COUNTED[@]}" "$2" | grep --count '^Trace '; }

cd kernels
for processor in "${PROCESSORS[@]}"; do
    read -r cpu way <<<"$processor"
    said=$(emulated "$cpu" "$counted" "${COUNTED[@]}" 1)
    [[ $said == *", $way)"* ]] || { printf 'test-arm: %s takes another way than %s: %s\n' "$cpu" "$way" "$said" >&2; exit 1; }
    for program in "${tests[@]}"; do
        printf 'test-arm: %s as %s (%s)\n' "$(basename "$program")" "$cpu" "$way"
        emulated "$cpu" "$program"
    done
done
for processor in "${PROCESSORS[@]}"; do
    read -r cpu way <<<"$processor"
    once=$(instructions "$cpu" 1)
    twice=$(instructions "$cpu" 2)
    awk -v way="$way" -v n="$((twice - once))" -v type="${COUNTED[0]}" -v outputs="${COUNTED[1]}" -v inputs="${COUNTED[2]}" \
        'BEGIN { printf "test-arm: %s, a matrix of %d × %d with one row: %.3f instructions a multiply-add by %s\n", type, outputs, inputs, n / outputs / inputs, way }'
done
