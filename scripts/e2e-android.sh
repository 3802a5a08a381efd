#!/usr/bin/env bash
# Tests of rings over adb: on the devices that $POLYPHONY_ANDROID_SERIALS names, each listed by `adb devices`, or else on four cheap phones
# (scripts/cheap-phones.sh), which are ended afterwards. Devices of people run what `make android` built for them; cheap ones the x86_64 build.
#
#   scripts/e2e-android.sh [TEST…]      all, or those whose names hold one of TEST
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

readonly N_CHEAP=4
target=$(realpath -m "${CARGO_TARGET_DIR:-target}")
tests=("$@")
((${#tests[@]})) || tests=(adb:: android::)
adb=${ADB:-adb}

if ! command -v "$adb" >/dev/null; then
    # shellcheck source-path=SCRIPTDIR source=debian-packages.sh
    source scripts/debian-packages.sh
    require_packages e2e-android adb
fi
compgen -G "$target/android/*/polyphony-agent" >/dev/null ||
    { printf 'e2e-android: the agent is not built: `make android` builds it\n' >&2; exit 1; }
cargo build --workspace --bins
cargo test --workspace --no-run
if [[ -z ${POLYPHONY_ANDROID_SERIALS:-} ]]; then
    unshare --mount --net --pid --fork true 2>/dev/null ||
        { printf 'skipped: e2e-android needs root that may make namespaces, for cheap phones, or devices in POLYPHONY_ANDROID_SERIALS\n'; exit 0; }
    # A server of their own: a person's has their phones, and a test kills it.
    export ANDROID_ADB_SERVER_PORT=${ANDROID_ADB_SERVER_PORT:-15037}
    export POLYPHONY_CHEAP_PHONES=$PWD/scripts/cheap-phones.sh
    trap '"$POLYPHONY_CHEAP_PHONES" down; "$adb" kill-server >/dev/null 2>&1 || true' EXIT
    serials=$("$POLYPHONY_CHEAP_PHONES" up "$N_CHEAP")
    [[ $serials != skipped:* ]] || { printf '%s\n' "$serials"; exit 0; }
    POLYPHONY_ANDROID_SERIALS=$(tr '\n' ' ' <<<"$serials")
    export POLYPHONY_ANDROID_SERIALS
    printf 'e2e-android: %s cheap phones, on a stand-in for Android'\''s C library, not on Android\n' "$N_CHEAP"
fi
# A test that skips tests nothing.
export POLYPHONY_NO_SKIP=1
cargo test --workspace --no-fail-fast --test it -- --include-ignored "${tests[@]}"
