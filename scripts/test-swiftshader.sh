#!/usr/bin/env bash
# SwiftShader, the Vulkan driver of Android's emulators: the kernels' tests on it. They take long, nearly all of it in its compiler. Of Debian's
# package that has it only the driver is kept, in $POLYPHONY_CACHE. A kernel that is too large for its compiler takes gigabytes: the tests are to
# end by that, and not the machine.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

readonly PACKAGE=chromium-common
readonly FOLDER=usr/lib/chromium
# Of address space, in KiB. Of memory 1.0 GB was seen, four of the six minutes in.
readonly MOST_KIB=$((16 << 20))

skip() {
    printf 'skipped: test-swiftshader needs %s\n' "$1" >&2
    exit 0
}

cache=${POLYPHONY_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/polyphony}
driver=$cache/swiftshader
if [[ ! -f $driver/vk_swiftshader_icd.json ]]; then
    command -v apt-get >/dev/null && command -v dpkg-deb >/dev/null || skip "Debian's apt-get, for the package $PACKAGE"
    mkdir -p "$cache"
    scratch=$(mktemp -d "$cache/swiftshader.XXXXXX")
    trap 'rm -rf -- "$scratch"' EXIT
    # A fresh machine has no package lists yet.
    download=(apt-get download -q "$PACKAGE")
    (cd "$scratch" && { "${download[@]}" || { apt-get update -q && "${download[@]}"; }; }) >"$scratch/log" 2>&1 ||
        skip "the package $PACKAGE: $(tail -n 1 "$scratch/log")"
    dpkg-deb --extract "$scratch"/*.deb "$scratch/whole"
    mkdir "$scratch/kept"
    mv -- "$scratch/whole/$FOLDER"/{libvk_swiftshader.so,vk_swiftshader_icd.json} "$scratch/kept/"
    mv -- "$scratch/kept" "$driver"
fi

cargo test --workspace --no-run
# Its place, now that it is built.
program=$(cargo test --workspace --no-run --message-format json 2>/dev/null |
    sed -n 's|.*"manifest_path":"[^"]*/kernels/Cargo.toml".*"name":"it".*"executable":"\([^"]*\)".*|\1|p')
[[ -x $program ]] || { printf 'test-swiftshader: cargo did not say where it has put the tests\n' >&2; exit 1; }
cd kernels
ulimit -v "$MOST_KIB"
# Whoever finds no driver fails, and does not skip.
POLYPHONY_NO_SKIP=1 VK_DRIVER_FILES=$driver/vk_swiftshader_icd.json VK_ICD_FILENAMES=$driver/vk_swiftshader_icd.json \
    "$program"
