#!/usr/bin/env bash
# Cheap phones: Debian's real adbd, each in namespaces of its own with a cable to this machine, with the x86_64 build of `make android` able to run on
# a stand-in for Android's C library. Not Android: what stands in for it is in e2e/cheap-phone and node-agent/android/stand-in. As root.
#
#   scripts/cheap-phones.sh up N            N of them, 1 to 16, known to the adb server of $ANDROID_ADB_SERVER_PORT; prints their serials
#   scripts/cheap-phones.sh down            ends all that `up` has started, whatever became of it
#   scripts/cheap-phones.sh status          a line for each
#   scripts/cheap-phones.sh kill SERIAL     one, without warning; `start SERIAL` brings it back with an empty data partition
#
# CHEAP_PHONES_NET (10.205) begins their addresses, CHEAP_PHONES_DATA (160m) is the size of a data partition.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

readonly NET=${CHEAP_PHONES_NET:-10.205}
readonly DATA=${CHEAP_PHONES_DATA:-160m}
readonly MOST=16
base=$(realpath -m "${CARGO_TARGET_DIR:-target}")/android
state=$base/cheap-phones
run=$state/run
adb=${ADB:-adb}

fail() { printf 'cheap-phones: %s\n' "$1" >&2; exit 1; }

# What a phone's root holds. Made anew each time but for what comes from Debian's archive.
make_image() {
    local image=$state/image debian=$state/debian
    # shellcheck source-path=SCRIPTDIR source=debian-packages.sh
    source scripts/debian-packages.sh
    # shellcheck source-path=SCRIPTDIR source=android-stand-in.sh
    source scripts/android-stand-in.sh
    build_stand_in cheap-phones "$base" x86_64
    if [[ ! -d $debian ]]; then
        # shellcheck disable=SC2154 # set by what is sourced
        unpack_packages trixie amd64 "$debian.new" adbd android-libbase android-libboringssl android-libcutils android-liblog busybox-static \
            libbrotli1 libbsd0 libc6 libcap2 libgcc-s1 liblz4-1 libmd0 libprotobuf32t64 libstdc++6 libsystemd0 libxxhash0 libzstd1 zlib1g ||
            fail "Debian trixie's adbd cannot be fetched ($apt_said)"
        mv -- "$debian.new" "$debian"
    fi
    rm -rf -- "$image"
    mkdir -p "$image"/{dev,proc,sys,run,data,mnt,system/bin,usr/bin,usr/lib}
    ln -s usr/bin "$image/bin"
    ln -s usr/lib64 "$image/lib64"
    cp -a "$debian/usr/lib/x86_64-linux-gnu" "$debian/usr/lib/android-sdk" "$image/usr/lib/"
    cp -a "$debian/usr/lib64" "$image/usr/"
    cp "$debian/usr/bin/busybox" "$image/usr/bin/busybox"
    local applet
    for applet in $("$image/usr/bin/busybox" --list); do
        [[ $applet == busybox || $applet == sh ]] || ln -s busybox "$image/usr/bin/$applet"
    done
    cp -a "$base/stand-in/x86_64/system/." "$image/system/"
    cp -a e2e/cheap-phone/system/. "$image/system/"
    # Where adbd looks for it.
    ln -s ../../system/bin/sh "$image/usr/bin/sh"
}

serial_of() { printf '%s.%s.2:5555\n' "$NET" "$1"; }

number_of() {
    local number
    for number in $(numbers); do
        [[ $(serial_of "$number") != "$1" ]] || { echo "$number"; return; }
    done
    fail "no cheap phone is called $1: \`status\` lists them"
}

numbers() { [[ ! -d $run ]] || find "$run" -mindepth 1 -maxdepth 1 -type d -printf '%f\n' | sort -n; }

# When a process started, in ticks since boot: a number that another process had is no reason to end this one.
started_at() {
    local stat
    stat=$(cat "/proc/$1/stat" 2>/dev/null) || return 1
    # shellcheck disable=SC2086 # words on purpose
    set -- ${stat##*) }
    [[ $1 != [ZX] ]] && echo "${20}"
}

# keeper_of NUMBER: its process, if that is still the one that was started.
keeper_of() {
    local pid began
    [[ -f $run/$1/keeper ]] || return 1
    read -r pid began <"$run/$1/keeper"
    [[ $(started_at "$pid") == "$began" ]] && echo "$pid"
}

start_phone() {
    local number=$1 folder=$run/$1 pid
    local cable=cheap$number host=$NET.$number.1
    keeper_of "$number" >/dev/null && fail "phone $number runs already: \`down\` ends it"
    [[ ! -e /sys/class/net/$cable ]] || fail "there is a network interface $cable that is not of this folder's phones: end what made it, or \`ip link delete $cable\`"
    mkdir -p "$folder"
    rm -f -- "$folder/go"
    mkfifo "$folder/go"
    setsid unshare --mount --net e2e/cheap-phone/keeper.sh "$state/image" "$NET.$number.2" "cheap-$number" "$DATA" \
        <>"$folder/go" >>"$folder/log" 2>&1 &
    pid=$!
    printf '%s %s\n' "$pid" "$(started_at "$pid")" >"$folder/keeper"
    disown
    # Its network is another than ours once unshare has done its work.
    until [[ $(readlink "/proc/$pid/ns/net") != "$(readlink /proc/self/ns/net)" ]]; do
        keeper_of "$number" >/dev/null || fail "phone $number did not start: $(tail -n 3 "$folder/log")"
        sleep 0.02
    done
    ip link add "$cable" type veth peer name eth0 netns "$pid"
    ip address add "$host/30" dev "$cable"
    ip link set "$cable" up
    echo >"$folder/go"
}

connect_phone() {
    local serial attempt
    serial=$(serial_of "$1")
    for ((attempt = 0; attempt < 50; attempt++)); do
        # What it knows of a phone that went is in the way of the next, and may be called a device for a while.
        timeout 10 "$adb" disconnect "$serial" >/dev/null 2>&1 || true
        timeout 10 "$adb" connect "$serial" >/dev/null 2>&1 || true
        [[ $(timeout 10 "$adb" -s "$serial" get-state 2>/dev/null) != device ]] || return 0
        sleep 0.1
    done
    fail "adb does not reach $serial: $(tail -n 3 "$run/$1/log")"
}

stop_phone() {
    local pid
    if pid=$(keeper_of "$1"); then
        # Its first process, and with it all others, end when their keeper's group does.
        kill -KILL -- "-$pid"
        while keeper_of "$1" >/dev/null; do sleep 0.02; done
    fi
    # It goes with the namespace, a moment later.
    ip link delete "cheap$1" 2>/dev/null || true
}

[[ $(id -u) == 0 ]] || fail 'root is needed, for namespaces'
case ${1:-} in
    up)
        n=${2:-}
        if [[ ! $n =~ ^[0-9]+$ ]] || ((n < 1 || n > MOST)); then fail "up N: 1 to $MOST phones"; fi
        command -v "$adb" >/dev/null || fail 'there is no program adb: on Debian `apt-get install adb`, or name it in $ADB'
        [[ -z $(numbers) ]] || "${BASH_SOURCE[0]}" down
        make_image
        timeout 20 "$adb" start-server >/dev/null 2>&1 || fail 'the adb server does not start'
        trap '"${BASH_SOURCE[0]}" down' EXIT
        for ((number = 1; number <= n; number++)); do start_phone "$number"; done
        for ((number = 1; number <= n; number++)); do
            connect_phone "$number"
            serial_of "$number"
        done
        trap - EXIT
        ;;
    down)
        for number in $(numbers); do
            stop_phone "$number"
            timeout 10 "$adb" disconnect "$(serial_of "$number")" >/dev/null 2>&1 || true
            rm -rf -- "${run:?}/$number"
        done
        ;;
    status)
        for number in $(numbers); do
            printf '%-20s %s\n' "$(serial_of "$number")" "$(keeper_of "$number" >/dev/null && echo runs || echo ended)"
        done
        ;;
    kill) stop_phone "$(number_of "${2:-}")" ;;
    start)
        number=$(number_of "${2:-}")
        start_phone "$number"
        connect_phone "$number"
        ;;
    *) fail 'up N, down, status, kill SERIAL, start SERIAL' ;;
esac
