#!/usr/bin/env bash
# Emulated phones are what scripts/phones.sh says: two of them over the real adb client, what is asked of them and what becomes of them. With the agent
# that `make android` built for phones, where there is one.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

# Not those of a person.
export ANDROID_ADB_SERVER_PORT=${POLYPHONY_TEST_ADB_PORT:-15038} POLYPHONY_PHONES_PORT=${POLYPHONY_PHONES_PORT:-16600}
readonly ONE=127.0.0.1:$POLYPHONY_PHONES_PORT
readonly TWO=127.0.0.1:$((POLYPHONY_PHONES_PORT + 1))
readonly LOCAL=/data/local/tmp
adb=${ADB:-adb}
base=$(realpath -m "${CARGO_TARGET_DIR:-target}")/android
agent=$base/arm64-v8a/polyphony-agent
run=$base/phones/run

[[ $(scripts/phones.sh status | wc -l) == 1 ]] || { echo 'test-phones: phones of this folder run already: `make phones-down` ends them' >&2; exit 1; }
scratch=$(mktemp -d)
trap 'scripts/phones.sh down; rm -rf -- "$scratch"' EXIT
# shellcheck source-path=SCRIPTDIR source=expect.sh
source scripts/expect.sh
# shellcheck source-path=SCRIPTDIR source=android-agent.sh
source scripts/android-agent.sh

on() { timeout 60 "$adb" -s "$1" shell "$2"; }
pushed_sum() { timeout 120 "$adb" -s "$1" push "$2" "$LOCAL/blob" >/dev/null && on "$1" "sha256sum <$LOCAL/blob"; }
why_not_pushed() { { timeout 120 "$adb" -s "$1" push "$2" "$LOCAL/blob" 2>&1 || true; } | grep -c 'No space left on device'; }
pulled_sum() { timeout 120 "$adb" -s "$1" pull "$LOCAL/blob" "$scratch/pulled" >/dev/null && sha256sum <"$scratch/pulled"; }
version_in() { timeout 120 "$adb" -s "$1" push "$2" "$LOCAL/" >/dev/null && on "$1" "$LOCAL/polyphony-agent --version"; }
# lines_of_status PATTERN: how many rows of the table it is found in.
lines_of_status() { scripts/phones.sh status | tail -n +2 | grep -cE "$1" || true; }
are_listening() { listening "${ONE#*:}" "${TWO#*:}" "$ANDROID_ADB_SERVER_PORT"; }
# Waits until it answers, and is another boot than BOOT.
is_back() {
    local serial=$1 boot=$2 now
    for ((attempt = 0; attempt < 120; attempt++)); do
        timeout 10 "$adb" connect "$serial" >/dev/null 2>&1 || true
        now=$(timeout 10 "$adb" -s "$serial" shell cat /proc/sys/kernel/random/boot_id 2>/dev/null) || now=''
        [[ -z $now || $now == "$boot" ]] || { echo back; return; }
        sleep 0.5
    done
    echo "not back in a minute"
}

serials=$(scripts/phones.sh up 2)
[[ $serials != skipped:* ]] || { printf '%s\n' "$serials"; exit 0; }
scripts/phones.sh status
is 'two are up' "$ONE"$'\n'"$TWO" echo "$serials"
is 'they and their server listen' "${ONE#*:}"$'\n'"${TWO#*:}"$'\n'"$ANDROID_ADB_SERVER_PORT" are_listening
is 'each has a name of its own' 'emulated-1 emulated-2' echo "$(on "$ONE" 'getprop ro.serialno') $(on "$TWO" 'getprop ro.serialno')"
is 'it says its ABI' arm64-v8a on "$ONE" 'getprop ro.product.cpu.abi'
is 'its processor has dot products of bytes' asimddp on "$ONE" 'grep -ow -m 1 asimddp /proc/cpuinfo'
is 'an exit status comes back' 7 status_of on "$ONE" 'exit 7'
is 'errors are told apart from output' out on "$ONE" 'echo out; echo error >&2'

head -c 3000000 /dev/urandom >"$scratch/blob"
is 'what is pushed is there' "$(sha256sum <"$scratch/blob")" pushed_sum "$ONE" "$scratch/blob"
is 'and comes back' "$(sha256sum <"$scratch/blob")" pulled_sum "$ONE"
is 'its partition is filled' full on "$ONE" "fallocate -l \$((\$(df -k /data | awk 'END { print \$4 }') - 1024))k $LOCAL/full && echo full"
head -c 9000000 /dev/urandom >"$scratch/more"
is 'what has no place is refused' 1 status_of pushed_sum "$ONE" "$scratch/more"
is 'and why is told' 1 why_not_pushed "$ONE" "$scratch/more"
is 'and it is well after that' well on "$ONE" "rm $LOCAL/full && echo well"
is 'an app is refused' 1 status_of on "$ONE" 'pm install some.apk'

is 'its battery is set' '7 Discharging' on "$ONE" 'dumpsys battery set level 7; dumpsys battery unplug; cd /sys/class/power_supply/test_battery; echo $(cat capacity status)'
is "another's is not" '80 Charging' on "$TWO" 'cd /sys/class/power_supply/test_battery; echo $(cat capacity status)'
is 'a level that is none is refused' 1 status_of on "$ONE" 'dumpsys battery set level 101'
is 'its heat is set' 71000 on "$ONE" 'echo 71000 >/sys/class/thermal/thermal_zone0/temp; cat /sys/class/thermal/thermal_zone0/temp'
is 'all of it is shown' 1 lines_of_status "^$ONE .* answers +7% +Discharging +71°C "

if [[ -x $agent ]]; then
    # An old one would be tried for the one that is there to be tried.
    require_agent test-phones "$base" arm64-v8a
    version=$(sed -n '0,/^version = /s/^version = "\(.*\)"$/\1/p' Cargo.toml)
    is 'the agent runs' "polyphony-agent $version" version_in "$ONE" "$agent"
else
    echo 'skipped: the agent in a phone: it is not built, `make android` builds it'
fi

boot=$(on "$ONE" 'cat /proc/sys/kernel/random/boot_id')
on "$ONE" "mkdir $LOCAL/folder && echo kept >$LOCAL/folder/file"
on "$ONE" reboot >/dev/null 2>&1 || true
is 'it reboots' back is_back "$ONE" "$boot"
is 'its data outlives that' kept on "$ONE" "cat $LOCAL/folder/file"
is 'its battery is as after each start' 80 on "$ONE" 'cat /sys/class/power_supply/test_battery/capacity'

on "$TWO" "echo kept >$LOCAL/file; sync"
is 'one is killed' 0 status_of scripts/phones.sh kill "$TWO"
is 'that is shown' 1 lines_of_status "^$TWO +ended"
is 'and nobody answers' 1 status_of on "$TWO" true
printf '#!/bin/sh\n' >"$scratch/mute"
chmod 755 "$scratch/mute"
is 'one that is never heard of is given up' 124 status_of env ADB="$scratch/mute" timeout 60 scripts/phones.sh start "$TWO"
is 'and not left behind' 1 lines_of_status "^$TWO +ended"
is 'it starts again' 0 status_of scripts/phones.sh start "$TWO"
is 'with what it had' kept on "$TWO" "cat $LOCAL/file"
is 'who is nobody cannot be killed' 1 status_of scripts/phones.sh kill 127.0.0.1:1
"$adb" kill-server >/dev/null 2>&1 || true
# As if that had been another's.
rm -- "$run/servers"
scripts/phones.sh kill "$TWO"
is 'one that starts without a server has one' 0 status_of scripts/phones.sh start "$TWO"
is 'and it is known whose that is' "$ANDROID_ADB_SERVER_PORT" cat "$run/servers"
kill -KILL "$(cat "$run/2/pid")"
"$adb" kill-server >/dev/null 2>&1 || true
is 'what was lost comes up again' "$serials" scripts/phones.sh up 2
is 'with what it had, too' kept on "$TWO" "cat $LOCAL/file"

is 'they are ended' 0 status_of scripts/phones.sh down
is 'none is left' 0 lines_of_status .
is 'nobody listens' '' are_listening
is 'to end none is no fault' 0 status_of scripts/phones.sh down
told 'test-phones: emulated phones, not Android'
