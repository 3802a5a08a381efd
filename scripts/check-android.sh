#!/usr/bin/env bash
# Will Android 7.0 and later load this program? Its loader, the libraries that it asks for and every name that it takes of them, its pages, its size.
#
#   scripts/check-android.sh [PROGRAM…]     without any: those of `make android`
#
# What no file tells, and nothing here says: whether it runs there.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

readonly LOADER=/system/bin/linker64
readonly LIBRARIES=" libc.so libm.so libdl.so liblog.so libandroid.so "
readonly NAMES=node-agent/android/sysroot/libraries.txt
readonly PAGE=16384
# What a person is asked to push over a slow cable, stripped.
readonly MOST_BYTES=$((40 << 20))

programs=("$@")
((${#programs[@]})) || mapfile -t programs < <(compgen -G "${CARGO_TARGET_DIR:-target}/android/*/*polyphony[-_]a*" | grep -v '\.apk$')
((${#programs[@]})) || { printf 'check-android: nothing is built: `make android` builds it\n' >&2; exit 1; }

wrong=0
for program in "${programs[@]}"; do
    faults=()
    header=$(readelf --file-header --wide "$program")
    segments=$(readelf --program-headers --wide "$program")
    dynamic=$(readelf --dynamic --wide "$program")
    machine=$(sed -n 's/^ *Machine: *//p' <<<"$header")
    [[ $header == *"Type:"*"DYN"* ]] || faults+=("its place in memory is fixed: Android asks for position-independent programs")
    # A library has no loader.
    loader=$(sed -n 's/.*\[Requesting program interpreter: \(.*\)\]/\1/p' <<<"$segments")
    [[ $loader == "$LOADER" || ($program == *.so && -z $loader) ]] || faults+=("its loader is ${loader:-none}: $LOADER is expected")
    for library in $(sed -n 's/.*(NEEDED).*\[\(.*\)\]/\1/p' <<<"$dynamic"); do
        [[ $LIBRARIES == *" $library "* ]] || faults+=("it needs $library, which is none of Android's:$LIBRARIES")
    done
    [[ $dynamic != *TEXTREL* ]] || faults+=("it changes its own text when it is loaded, which Android refuses")
    for align in $(awk '$1 == "LOAD" { print $NF }' <<<"$segments"); do
        ((align >= PAGE)) || faults+=("a segment is aligned to $align bytes: phones with pages of 16 KiB need $PAGE")
    done
    # What it takes without fail has to be there; what is weak may be missing.
    unknown=$(readelf --dyn-syms --wide "$program" |
        awk '$7 == "UND" && $5 == "GLOBAL" { sub(/@.*/, "", $8); print $8 }' | sort -u |
        comm -23 - <(awk '!/^#/ { print $2 }' "$NAMES" | sort -u))
    [[ -z $unknown ]] || faults+=("it takes names that $NAMES does not list as Android 7.0's: $(paste -sd ' ' <<<"$unknown")")
    bytes=$(stat --format %s "$program")
    ((bytes <= MOST_BYTES)) || faults+=("it has $bytes bytes: no more than $MOST_BYTES are expected")
    if ((${#faults[@]})); then
        wrong=1
        printf 'check-android: %s: %s\n' "$program" "${faults[@]/#/}" >&2
    else
        printf 'check-android: %s: %s, %d KiB, of Android 7.0 and later\n' "$program" "$machine" $((bytes >> 10))
    fi
done
exit "$wrong"
