#!/usr/bin/env bash
# Tests of rings over adb: on the devices that $POLYPHONY_ANDROID_SERIALS names, each listed by `adb devices`, or else on four cheap phones
# (scripts/cheap-phones.sh), which are ended afterwards. Devices of people run what `make android` built for them; cheap ones the x86_64 build.
#
#   scripts/e2e-android.sh [TEST…]      all, or those whose names hold one of TEST
#
# Of an adb server that runs already nothing is ended but with devices of people, whose server a test kills and starts again.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

readonly N_CHEAP=4
target=$(realpath -m "${CARGO_TARGET_DIR:-target}")
tests=("$@")
((${#tests[@]})) || tests=(adb:: android::)
if [[ -z ${POLYPHONY_ANDROID_SERIALS:-} ]]; then
    # A server of their own: a person's has their phones, and a test kills it.
    export ANDROID_ADB_SERVER_PORT=${ANDROID_ADB_SERVER_PORT:-15037}
    cheap=$PWD/scripts/cheap-phones.sh
fi
# shellcheck source-path=SCRIPTDIR source=debian-packages.sh
source scripts/debian-packages.sh
# shellcheck source-path=SCRIPTDIR source=android-agent.sh
source scripts/android-agent.sh
# shellcheck source-path=SCRIPTDIR source=adb-server.sh
source scripts/adb-server.sh

fail() { printf 'e2e-android: %s\n' "$1" >&2; exit 1; }

# shellcheck disable=SC2154 # set by what is sourced
command -v "$adb" >/dev/null || require_packages e2e-android adb
if [[ -n ${cheap:-} ]]; then
    if [[ $(id -u) != 0 ]]; then
        printf 'skipped: e2e-android needs root, for cheap phones, or devices in POLYPHONY_ANDROID_SERIALS\n'
        exit 0
    fi
    abis=(x86_64)
    # With the server of a run that was killed.
    "$cheap" down
    # shellcheck disable=SC2154 # set by what is sourced
    ! server_runs || fail "an adb server listens at port $server_port, and a test kills it: name a free port in ANDROID_ADB_SERVER_PORT"
else
    abis=()
    for serial in $POLYPHONY_ANDROID_SERIALS; do
        abi=$(abi_of "$adb" "$serial") || fail "$serial runs ${abi:-nothing that it tells of}, for which no agent is built: leave it out"
        abis+=("$abi")
    done
fi
require_agent e2e-android "$target/android" "${abis[@]}"
cargo build --workspace --bins
cargo test --workspace --no-run
# A test of another name, or one that skips, tests nothing.
for each in "${tests[@]}"; do
    cargo test --workspace --test it -- --list "$each" 2>/dev/null | grep ': test$' >/dev/null || fail "no test is called $each"
done
if [[ -n ${cheap:-} ]]; then
    export POLYPHONY_CHEAP_PHONES=$cheap
    trap '"$cheap" down' EXIT
    serials=$("$cheap" up "$N_CHEAP")
    [[ $serials != skipped:* ]] || { printf '%s\n' "$serials"; exit 0; }
    POLYPHONY_ANDROID_SERIALS=$(tr '\n' ' ' <<<"$serials")
    export POLYPHONY_ANDROID_SERIALS
    printf 'e2e-android: %s cheap phones, on a stand-in for Android'\''s C library, not on Android\n' "$N_CHEAP"
fi
if [[ $(wc -w <<<"$POLYPHONY_ANDROID_SERIALS") == 1 ]]; then
    printf 'e2e-android: one device alone: what it holds goes to a second agent of this machine when it is drained or lost\n'
fi
export POLYPHONY_NO_SKIP=1
cargo test --workspace --no-fail-fast --test it -- --include-ignored "${tests[@]}"
