#!/usr/bin/env bash
# Rings over whatever `adb devices` lists: an emulator of a hosted runner, phones of a farm, or on this machine what `make phones` started. Builds the agent
# for them by the NDK where there is one (scripts/android.sh) and runs scripts/e2e-android.sh. The workflows .github/workflows/android*.yml call nothing else.
#
#   scripts/e2e-android-hosted.sh [TEST…]                 all, or those whose names hold one of TEST
#   scripts/e2e-android-hosted.sh --build-only ABI…       builds, and starts nothing
#   scripts/e2e-android-hosted.sh --list                  the devices that it would take and the ABI of each, one a line
#
# A device that takes no commands or for which no agent is built is left out with a word; where none is left, that is a failure.
#
# POLYPHONY_ANDROID_PAGE_SIZE: the page size in bytes that every device has to have, where it is not empty.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

adb=${ADB:-adb}
# shellcheck source-path=SCRIPTDIR source=android-agent.sh
source scripts/android-agent.sh

say() { printf 'e2e-android-hosted: %s\n' "$1" >&2; }
fail() { say "$1"; exit 1; }

# Names of the NDK on GitHub's machines and on people's.
find_ndk() {
    [[ -z ${ANDROID_NDK_HOME:-} ]] || return 0
    local sdk=${ANDROID_HOME:-${ANDROID_SDK_ROOT:-}} found=${ANDROID_NDK_LATEST_HOME:-}
    [[ -n $found || -z $sdk ]] || found=$(compgen -G "$sdk/ndk/*" | sort -V | tail -n 1) || true
    if [[ -n $found ]]; then
        export ANDROID_NDK_HOME=$found
    else
        printf 'e2e-android-hosted: no NDK here: neither ANDROID_NDK_HOME nor one in ANDROID_HOME; by Debian'\''s compilers then\n' >&2
    fi
}

build() {
    local abi
    find_ndk
    if [[ -n ${ANDROID_NDK_HOME:-} ]]; then
        for abi in "$@"; do
            case $abi in
                arm64-v8a) rustup target add aarch64-linux-android ;;
                x86_64) rustup target add x86_64-linux-android ;;
                *) fail "no agent is built for $abi: ${AGENT_ABIS[*]}" ;;
            esac
        done
    fi
    scripts/android.sh "$@"
}

if [[ ${1:-} == --build-only ]]; then
    shift
    (($# > 0)) || fail "--build-only needs an ABI: ${AGENT_ABIS[*]}"
    build "$@"
    exit
fi

command -v "$adb" >/dev/null || fail 'there is no program adb: it is in the platform-tools of the SDK, or name it in $ADB'
listed=$(timeout 60 "$adb" devices) || fail 'adb does not answer'
serials=()
abis=()
while read -r serial state; do
    [[ -n $serial && $serial != List && $serial != \** ]] || continue
    [[ $state == device ]] || { say "$serial is $state, and left out"; continue; }
    if ! abi=$(abi_of "$adb" "$serial"); then
        say "$serial runs ${abi:-nothing that it tells of}, for which no agent is built, and is left out"
        continue
    fi
    if [[ -n ${POLYPHONY_ANDROID_PAGE_SIZE:-} ]]; then
        # Asked for of every device: one of another size is a mistake in what was started.
        page=$(timeout 30 "$adb" -s "$serial" shell getconf PAGE_SIZE </dev/null | tr -d '\r') || fail "$serial does not say its page size"
        [[ $page == "$POLYPHONY_ANDROID_PAGE_SIZE" ]] || fail "$serial has pages of $page bytes, $POLYPHONY_ANDROID_PAGE_SIZE expected"
    fi
    say "$serial, $abi"
    serials+=("$serial")
    abis+=("$abi")
done <<<"$listed"
((${#serials[@]})) || fail '`adb devices` lists none that can be used'
if [[ ${1:-} == --list ]]; then
    for ((idx = 0; idx < ${#serials[@]}; idx++)); do printf '%s %s\n' "${serials[idx]}" "${abis[idx]}"; done
    exit
fi
mapfile -t abis < <(printf '%s\n' "${abis[@]}" | sort -u)

build "${abis[@]}"
scripts/setup.sh tests
export POLYPHONY_ANDROID_SERIALS="${serials[*]}"
exec scripts/e2e-android.sh "$@"
