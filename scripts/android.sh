#!/usr/bin/env bash
# Android: builds the agent for phones (arm64-v8a) and for emulators on a PC (x86_64), with all optimisations and stripped, as a program,
# target/android/ABI/polyphony-agent, and as the app's library, libpolyphony_app.so beside it, and holds both to what Android 7.0 asks of them
# (scripts/check-android.sh).
#
#   scripts/android.sh [ABI…]
#
# With ANDROID_NDK_HOME set: by Google's NDK, and rustup's standard library (`rustup target add aarch64-linux-android x86_64-linux-android`).
# Without it: by Debian's compilers, with the standard library from source, and node-agent/android/sysroot in the place of the NDK's. No package
# of Debian's has Android's libraries; a program is linked against their names alone, and finds the libraries themselves on the phone.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

# Android 7.0, the first with Vulkan.
readonly API_LEVEL=24
# Android 15 has phones whose pages are of 16 KiB.
readonly PAGE=16384
readonly LLVM=19

name=android
base=$(pwd)/${CARGO_TARGET_DIR:-target}/android
case ${CARGO_TARGET_DIR:-} in /*) base=$CARGO_TARGET_DIR/android ;; esac
abis=("$@")
((${#abis[@]})) || abis=(arm64-v8a x86_64)

architecture_of() {
    case $1 in
        arm64-v8a) echo aarch64 ;;
        x86_64) echo x86_64 ;;
        *) printf 'android: no ABI is called %s: arm64-v8a or x86_64\n' "$1" >&2; exit 2 ;;
    esac
}
for abi in "${abis[@]}"; do
    architecture_of "$abi" >/dev/null
    # An old one is not to be taken for what is made here.
    rm -f -- "$base/$abi/"{polyphony-agent,libpolyphony_app.so}
done
command -v readelf >/dev/null || { printf 'android: readelf is needed to look at what was built: it is in binutils\n' >&2; exit 1; }

# Compilers by the names that the NDK gives them: ARCHITECTURE-linux-android24-clang, and llvm-ar.
ndk_toolchain() {
    local found
    found=$(compgen -G "$ANDROID_NDK_HOME/toolchains/llvm/prebuilt/*/bin" | head -n 1)
    [[ -n $found ]] || { printf 'android: ANDROID_NDK_HOME, %s, has no toolchains/llvm/prebuilt/…/bin\n' "$ANDROID_NDK_HOME" >&2; exit 1; }
    printf '%s\n' "$found"
}

# The same, of Debian's clang, for one architecture.
debian_toolchain() {
    local arch=$1 toolchain=$base/toolchain sources=node-agent/android/sysroot
    local sysroot=$toolchain/$arch debian=$toolchain/debian-$arch
    local libraries=$sysroot/usr/lib/$arch-linux-android/$API_LEVEL
    local compiler=$toolchain/bin/$arch-linux-android$API_LEVEL-clang
    mkdir -p "$toolchain/bin" "$libraries" "$sysroot/usr/include"
    local deb_arch=arm64
    [[ $arch == aarch64 ]] || deb_arch=amd64
    if [[ ! -d $debian ]]; then
        # shellcheck disable=SC2154 # set by what is sourced
        unpack_packages bookworm "$deb_arch" "$debian.new" "libunwind-$LLVM-dev" musl-dev ||
            { printf 'skipped: android needs Debian'\''s libunwind-%s-dev and musl-dev of %s (%s)\n' "$LLVM" "$deb_arch" "$apt_said"; exit 0; }
        mv -- "$debian.new" "$debian"
    fi
    # For C in dependencies: it includes what is the same in every C library.
    cp -r "$debian/usr/include/$arch-linux-musl/." "$sysroot/usr/include/"
    printf '#!/bin/sh\nexec clang-%s --target=%s-linux-android%s --sysroot="%s" -fuse-ld=lld --ld-path=/usr/bin/ld.lld-%s -Wl,--no-dependent-libraries -Wl,--error-limit=0 -Wno-unused-command-line-argument "$@"\n' \
        "$LLVM" "$arch" "$API_LEVEL" "$sysroot" "$LLVM" >"$compiler"
    chmod +x "$compiler"
    ln -sf "/usr/bin/llvm-ar-$LLVM" "$toolchain/bin/llvm-ar"

    assemble() { "$compiler" -DAPI_LEVEL=$API_LEVEL -c "$sources/$1" -o "$libraries/$2"; }
    assemble "start.$arch.S" crtbegin_dynamic.o
    assemble library.S crtbegin_so.o
    assemble end.S crtend_android.o
    assemble end.S crtend_so.o
    # Libraries that have the names, and nothing behind them.
    local library
    for library in libc libm libdl liblog libandroid; do
        awk -v library="$library" 'BEGIN { print ".text" }
            $1 == library { printf ".globl %s\n.type %s, %%%s\n%s: .zero 8\n.size %s, 8\n", $2, $2, ($4 == "variable" ? "object" : "function"), $2, $2 }
            END { print ".section .note.GNU-stack, \"\", %progbits" }' "$sources/libraries.txt" >"$sysroot/$library.S"
        awk -v library="$library" '$1 == library { names[$3] = names[$3] " " $2 ";" }
            END { for (version in names) printf "%s { global:%s };\n", version, names[version] }' "$sources/libraries.txt" >"$sysroot/$library.map"
        "$compiler" -c "$sysroot/$library.S" -o "$sysroot/$library.o"
        local versions=()
        [[ ! -s $sysroot/$library.map ]] || versions=("--version-script=$sysroot/$library.map")
        "ld.lld-$LLVM" -shared -soname "$library.so" "${versions[@]}" -o "$libraries/$library.so" "$sysroot/$library.o"
    done
    "$compiler" -O2 -fPIC -c "$sources/unwind.c" -o "$sysroot/unwind.o"
    cp "$(find "$debian" -name libunwind.a | head -n 1)" "$libraries/libunwind.a"
    chmod u+w "$libraries/libunwind.a"
    "$toolchain/bin/llvm-ar" q "$libraries/libunwind.a" "$sysroot/unwind.o"
}

options=(--locked --release --package polyphony-agent --package polyphony-app --bins --lib --config 'profile.release.strip="symbols"')
cargo=(cargo)
if [[ -n ${ANDROID_NDK_HOME:-} ]]; then
    bin=$(ndk_toolchain)
else
    packages=(rustc-web cargo-web rust-web-src "clang-$LLVM" "lld-$LLVM" "llvm-$LLVM")
    # shellcheck source-path=SCRIPTDIR source=debian-rust.sh
    source scripts/debian-rust.sh
    bin=$base/toolchain/bin
    for abi in "${abis[@]}"; do debian_toolchain "$(architecture_of "$abi")"; done
    cargo=(/usr/bin/cargo)
    options+=(-Z "build-std=std,panic_unwind")
fi

# A folder of its own: another compiler would otherwise drive out what `make build` built. Flags for all targets would put aside those below.
export CARGO_TARGET_DIR=$base
unset RUSTFLAGS CARGO_ENCODED_RUSTFLAGS
for abi in "${abis[@]}"; do
    triple=$(architecture_of "$abi")-linux-android
    variable=${triple//-/_}
    compiler=$bin/$triple$API_LEVEL-clang
    export "CC_$variable=$compiler" "AR_$variable=$bin/llvm-ar" "CARGO_TARGET_${variable^^}_LINKER=$compiler"
    export "CARGO_TARGET_${variable^^}_RUSTFLAGS=-C link-arg=-Wl,-z,max-page-size=$PAGE"
    "${cargo[@]}" build "${options[@]}" --target "$triple"
    mkdir -p "$base/$abi"
    for built in polyphony-agent libpolyphony_app.so; do
        scripts/check-android.sh "$base/$triple/release/$built"
        cp "$base/$triple/release/$built" "$base/$abi/$built"
    done
done
