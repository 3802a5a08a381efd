# shellcheck shell=bash
# Sourced by what runs Android programs here; after debian-packages.sh, whose functions it takes.

# build_stand_in NAME BASE ARCHITECTURE: what lies at /system on a phone is in BASE/stand-in/ARCHITECTURE/system then: musl's loader in the place of
# Android's, and node-agent/android/stand-in for its C library. Ends the script, in green and with one line, where Debian's packages cannot be had; NAME is
# who asks. Needs the packages clang-19 and lld-19.
build_stand_in() {
    local name=$1 base=$2 arch=$3 deb_arch=arm64 llvm=19 library
    local stand_in=$base/stand-in/$arch musl=$base/stand-in/musl-$arch
    [[ $arch == aarch64 ]] || deb_arch=amd64
    require_packages "$name" "clang-$llvm" "lld-$llvm"
    if [[ ! -d $musl ]]; then
        # shellcheck disable=SC2154 # set by what was asked
        unpack_packages bookworm "$deb_arch" "$musl.new" musl musl-dev ||
            { printf 'skipped: %s needs Debian'\''s musl of %s (%s)\n' "$name" "$deb_arch" "$apt_said"; exit 0; }
        mv -- "$musl.new" "$musl"
    fi
    mkdir -p "$stand_in/system/bin" "$stand_in/system/lib64"
    cp -L "$(find "$musl" -name libc.so -path '*musl*' | head -n 1)" "$stand_in/system/bin/linker64"
    local compiler=("clang-$llvm" "--target=$arch-linux-musl" -O2 -fPIC -shared -nostdlib -nostdinc -isystem "$musl/usr/include/$arch-linux-musl"
        -fuse-ld=lld "--ld-path=/usr/bin/ld.lld-$llvm")
    "${compiler[@]}" -o "$stand_in/system/lib64/bionic.so" node-agent/android/stand-in/bionic.c
    for library in liblog libandroid; do
        "${compiler[@]}" "-Wl,-soname,$library.so" -o "$stand_in/system/lib64/$library.so" -x c /dev/null
    done
}
