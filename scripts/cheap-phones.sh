#!/usr/bin/env bash
# Cheap phones: Debian's real adbd, each in namespaces of its own with a cable to this machine, with the x86_64 build of `make android` able to run on
# a stand-in for Android's C library. Not Android: what stands in for it is in e2e/cheap-phone and node-agent/android/stand-in. As root.
#
#   scripts/cheap-phones.sh up N            N of them, 1 to 16, known to the adb server of $ANDROID_ADB_SERVER_PORT; prints their serials
#   scripts/cheap-phones.sh down            ends all that `up` has started, whatever became of it
#   scripts/cheap-phones.sh status          a line for each
#   scripts/cheap-phones.sh kill SERIAL     one, without warning; `start SERIAL` brings it back with an empty data partition
#
# CHEAP_PHONES_NET (10.205) begins their addresses, CHEAP_PHONES_DATA (160m) is the size of a data partition. What comes after `up` goes by its net and
# its adb server. Who is root in a phone is a user of this
# machine's that is nobody else, with no capability but to restart the phone. The phones begin nothing with this machine, and only root's programs reach
# them, or the adb server that knows them, for as long as they are there: it does as root what a phone asks of it.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
# Where a user's shell does not look for `ip` and `nft`.
PATH=$PATH:/usr/sbin:/sbin
# Another user reads what is made here.
umask 022

NET=${CHEAP_PHONES_NET:-10.205}
readonly DATA=${CHEAP_PHONES_DATA:-160m}
readonly MOST=16
# Above every number that people, services and containers are given (systemd's table of users and groups).
readonly FIRST_USER=1900000000
# What starting or ending one takes at most, on a busy machine.
readonly PATIENCE_SECONDS=30
# All of what somebody else does with the phones of this folder.
readonly TURN_SECONDS=300
base=$(realpath -m "${CARGO_TARGET_DIR:-target}")/android
state=$base/cheap-phones
run=$state/run
# Tells what is this folder's from another's.
tag=$(printf '%s' "$run" | sha256sum | cut -c 1-8)
readonly MARK="cheap phones $tag" TABLE=cheap_phones_$tag
CABLES=cheap${NET/./-}-
# shellcheck source-path=SCRIPTDIR source=adb-server.sh
source scripts/adb-server.sh

say() { printf 'cheap-phones: %s\n' "$1" >&2; }
fail() { say "$1"; exit 1; }
skip() { printf 'skipped: cheap phones need %s\n' "$1"; exit 0; }

# === What they need ===

# instruction CODE IF_SO IF_NOT NUMBER: one of the kernel's struct sock_filter.
instruction() {
    local bytes
    printf -v bytes '\\x%02x' "$1" 0 "$2" "$3" $(($4 & 255)) $(($4 >> 8 & 255)) $(($4 >> 16 & 255)) $(($4 >> 24 & 255))
    printf '%b' "$bytes"
}

# A filter for seccomp by which no program of a phone has a socket for virtual machines: adbd listens on one beside TCP, these know of no namespaces, and
# nft of none of them, so that any user of this machine would be let in.
no_vsock() {
    local -r load=0x20 if_equal=0x15 if_least=0x35 answer=0x06
    # Which architecture is called by: x86_64 alone, and not its x32.
    instruction $load 0 0 4
    instruction $if_equal 0 5 0xc000003e
    instruction $load 0 0 0
    instruction $if_least 3 0 0x40000000
    # socket(AF_VSOCK, …) is answered by EAFNOSUPPORT.
    instruction $if_equal 0 3 41
    instruction $load 0 0 16
    instruction $if_equal 0 1 40
    instruction $answer 0 0 0x00050061
    instruction $answer 0 0 0x7fff0000
}

# What a phone's root holds. Made anew each time but for what comes from Debian's archive.
make_image() {
    local image=$state/image debian=$state/debian
    # shellcheck source-path=SCRIPTDIR source=android-stand-in.sh
    source scripts/android-stand-in.sh
    build_stand_in cheap-phones "$base" x86_64
    if [[ ! -x $debian/usr/bin/setpriv ]]; then
        rm -rf -- "$debian" "$debian.new"
        # shellcheck disable=SC2154 # set by what is sourced
        unpack_packages trixie amd64 "$debian.new" adbd android-libbase android-libboringssl android-libcutils android-liblog busybox-static \
            libbrotli1 libbsd0 libc6 libcap-ng0 libcap2 libgcc-s1 liblz4-1 libmd0 libprotobuf32t64 libstdc++6 libsystemd0 libxxhash0 libzstd1 \
            util-linux zlib1g || fail "Debian trixie's adbd cannot be fetched ($apt_said)"
        mv -- "$debian.new" "$debian"
    fi
    rm -rf -- "$image"
    mkdir -p "$image"/{dev,proc,sys,run,data,mnt,system/bin,usr/bin,usr/lib}
    ln -s usr/bin "$image/bin"
    ln -s usr/lib64 "$image/lib64"
    cp -a "$debian/usr/lib/x86_64-linux-gnu" "$debian/usr/lib/android-sdk" "$image/usr/lib/"
    cp -a "$debian/usr/lib64" "$image/usr/"
    cp "$debian/usr/bin/busybox" "$debian/usr/bin/setpriv" "$image/usr/bin/"
    local applet
    for applet in $("$image/usr/bin/busybox" --list); do
        [[ $applet == sh || -e $image/usr/bin/$applet ]] || ln -s busybox "$image/usr/bin/$applet"
    done
    cp -a "$base/stand-in/x86_64/system/." "$image/system/"
    cp -a e2e/cheap-phone/system/. "$image/system/"
    # Where adbd looks for it.
    ln -s ../../system/bin/sh "$image/usr/bin/sh"
    mkdir -p "$image/system/etc"
    no_vsock >"$image/system/etc/no-vsock"
    # A phone's root is a stranger to who has made this.
    chmod -R go+rX "$image"
}

# Ends in green with the reason where this machine cannot have them.
require_all() {
    local packages=() why
    # shellcheck source-path=SCRIPTDIR source=debian-packages.sh
    source scripts/debian-packages.sh
    [[ $(id -u) == 0 ]] || skip 'root, for namespaces'
    command -v "$adb" >/dev/null || packages+=(adb)
    command -v ip >/dev/null || packages+=(iproute2)
    command -v nft >/dev/null || packages+=(nftables)
    ((${#packages[@]} == 0)) || require_packages cheap-phones "${packages[@]}"
    command -v "$adb" >/dev/null || fail "there is no program $adb, which \$ADB names"
    why=$(unshare --mount --net true 2>&1) || skip "a machine that lets root make namespaces ($why)"
    why=$(as_phone "$FIRST_USER" mount -t proc proc /proc 2>&1) || skip "a machine that lets users make namespaces of users ($why)"
    why=$(nft list tables 2>&1 >/dev/null) || skip "a kernel with nft's tables ($why)"
}

# as_phone USER COMMAND…: as the first process of namespaces in which that user, who is nobody outside, is root.
as_phone() {
    setpriv --reuid "$1" --regid "$1" --clear-groups --inh-caps=-all \
        unshare --user --map-root-user --mount --pid --ipc --uts --fork --kill-child "${@:2}"
}

# Whoever reaches a phone, or the server, has programs of root's do things: adb's server opens on this machine what a phone asks for. Programs of other
# users are kept from both, phones from this machine, and both from the network.
guard() {
    local ports
    # Those that were started for these phones before know them as well.
    ports=$({ cat "$run/servers" 2>/dev/null || true; printf '%s\n' "$server_port"; } | sort -nu | paste -sd , -)
    nft -f - <<RULES || fail 'the rules that keep other users from the phones are not taken'
table inet $TABLE
delete table inet $TABLE
table inet $TABLE {
    chain output {
        type filter hook output priority 0; policy accept;
        oifname "$CABLES*" meta skuid 0 accept
        # What belongs to no socket any more: the end of what was let begin.
        oifname "$CABLES*" tcp flags & (syn | ack) != syn accept
        oifname "$CABLES*" drop
        oifname "lo" tcp dport { $ports } meta skuid != 0 reject with tcp reset
    }
    chain input {
        type filter hook input priority 0; policy accept;
        iifname "$CABLES*" tcp flags & (syn | ack) != syn accept
        iifname "$CABLES*" drop
    }
    chain forward {
        type filter hook forward priority 0; policy accept;
        iifname "$CABLES*" drop
        oifname "$CABLES*" drop
    }
}
RULES
}

# users_of_server: whose it is that listens at the server's port, one a line.
users_of_server() {
    local port
    port=$(printf '%04X' "$server_port")
    cat /proc/net/tcp /proc/net/tcp6 2>/dev/null | awk -v port=":$port" '$4 == "0A" && substr($2, length($2) - 4) == port { print $8 }' | sort -u
}

# === One phone ===

numbers() { [[ ! -d $run ]] || find "$run" -mindepth 1 -maxdepth 1 -type d -printf '%f\n' | sort -n; }

serial_of() { cat "$run/$1/serial" 2>/dev/null || true; }

# number_of SERIAL. In an assignment of its own, so that its failure is the script's.
number_of() {
    local number
    for number in $(numbers); do
        [[ $(serial_of "$number") != "$1" ]] || { echo "$number"; return; }
    done
    fail "no cheap phone is called ${1:-nothing}: \`status\` lists them"
}

# user_of NUMBER: of the net as well, since another folder's phones are strangers, too.
user_of() {
    local first second
    IFS=. read -r first second <<<"$NET"
    echo $((FIRST_USER + (first * 256 + second) * (MOST + 1) + $1))
}

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
    local pid='' began='' now
    read -r pid began <"$run/$1/keeper" 2>/dev/null || return 1
    [[ -n $began ]] && now=$(started_at "$pid") && [[ $now == "$began" ]] && echo "$pid"
} 2>/dev/null

# is_unshared PID: its network is another than this script's.
is_unshared() {
    local its
    its=$(readlink "/proc/$1/ns/net") && [[ $its != "$(readlink /proc/self/ns/net)" ]]
}

# await SECONDS COMMAND…: until it succeeds; fails where it does not.
await() {
    local deadline=$((SECONDS + $1))
    shift
    until "$@" >/dev/null 2>&1; do
        ((SECONDS < deadline)) || return 1
        sleep 0.02
    done
}

cable_of() { cat "$run/$1/cable" 2>/dev/null || true; }

is_no_cable() { [[ ! -e /sys/class/net/$1 ]]; }

# is_ours CABLE: by what was written on it when it was made.
is_ours() { [[ $(cat "/sys/class/net/$1/ifalias" 2>/dev/null) == "$MARK" ]]; }

has_no_keeper() { ! keeper_of "$1"; }

last_words() { tail -n 3 "$run/$1/log" 2>/dev/null || true; }

start_phone() {
    local number=$1 folder=$run/$1 cable=$CABLES$1 pid began user
    # One that ended a moment ago may still be going.
    if is_ours "$cable"; then ip link delete "$cable" 2>/dev/null || true; fi
    is_no_cable "$cable" || fail "there is a network interface $cable that is not of this folder's phones: CHEAP_PHONES_NET gives them other addresses"
    user=$(user_of "$number")
    mkdir -p "$folder"
    printf '%s\n' "$NET.$number.2:5555" >"$folder/serial"
    printf '%s\n' "$cable" >"$folder/cable"
    rm -f -- "$folder/go" "$folder/keeper"
    mkfifo "$folder/go"
    setsid unshare --mount --net e2e/cheap-phone/keeper.sh "$state/image" "$NET.$number.2" "cheap-$number" "$DATA" "$user" \
        <>"$folder/go" >>"$folder/log" 2>&1 9>&- &
    pid=$!
    disown
    # Its network is another than ours once unshare has done its work; it may end before.
    if ! began=$(started_at "$pid") || ! printf '%s %s\n' "$pid" "$began" >"$folder/keeper" || ! await "$PATIENCE_SECONDS" is_unshared "$pid"; then
        fail "phone $number did not start: $(last_words "$number")"
    fi
    ip link add "$cable" type veth peer name eth0 netns "$pid"
    ip link set "$cable" alias "$MARK"
    ip address add "$NET.$number.1/30" dev "$cable"
    ip link set "$cable" up
    echo >"$folder/go"
}

connect_phone() {
    local serial deadline=$((SECONDS + PATIENCE_SECONDS))
    serial=$(serial_of "$1")
    while ((SECONDS < deadline)); do
        keeper_of "$1" >/dev/null || fail "phone $1 has ended: $(last_words "$1")"
        # What it knows of a phone that went is in the way of the next, and may be called a device for a while.
        ask_adb 10 disconnect "$serial" >/dev/null || true
        ask_adb 10 connect "$serial" >/dev/null || true
        [[ $(ask_adb 10 -s "$serial" get-state) != device ]] || return 0
        sleep 0.1
    done
    fail "adb does not reach $serial: $(last_words "$1")"
}

# Fails where something of it is left, so that nobody forgets it.
stop_phone() {
    local pid cable
    cable=$(cable_of "$1")
    if pid=$(keeper_of "$1"); then
        # Its first process, and with it all others, end when their keeper's group does.
        kill -KILL -- "-$pid" 2>/dev/null || true
        await "$PATIENCE_SECONDS" has_no_keeper "$1" || fail "phone $1, process $pid, does not end"
    fi
    rm -f -- "$run/$1/keeper"
    [[ -n $cable ]] || return 0
    # It goes with the namespace, a moment later.
    if is_ours "$cable"; then ip link delete "$cable" 2>/dev/null || true; fi
}

# === Words ===

take_turn() {
    mkdir -p "$state" "$run"
    exec 9>"$state/lock"
    flock -w "$TURN_SECONDS" 9 || fail 'another of these runs in this folder, and does not end'
}

# By what net the phones of this folder are, and which adb server knows them: what guards them is by both. Who names others means other phones.
recall() {
    local net port
    read -r net port 2>/dev/null <"$run/up" || return 0
    [[ ${CHEAP_PHONES_NET:-$net} == "$net" ]] ||
        fail "the phones of this folder are of the net $net, and CHEAP_PHONES_NET is $CHEAP_PHONES_NET: leave it out, or \`down\` and \`up\` anew"
    [[ ${ANDROID_ADB_SERVER_PORT:-$port} == "$port" ]] ||
        fail "the phones of this folder are known to the adb server at port $port, and ANDROID_ADB_SERVER_PORT is $ANDROID_ADB_SERVER_PORT: leave it out, or \`down\` and \`up\` anew"
    NET=$net
    CABLES=cheap${NET/./-}-
    server_port=$port
    export ANDROID_ADB_SERVER_PORT=$port
}

start_adb() {
    local users
    users=$(users_of_server)
    [[ -z $users || $users == 0 ]] ||
        fail "the adb server at port $server_port is the user $users's, who is not let to the phones: name a free port in ANDROID_ADB_SERVER_PORT"
    start_server "$run/servers" || fail 'the adb server does not start'
}

down() {
    local number serial port
    # The server that knows them, whichever is meant now.
    read -r _ port 2>/dev/null <"$run/up" || port=$server_port
    for number in $(numbers); do
        serial=$(serial_of "$number")
        stop_phone "$number"
        # Where none runs, none is started for this.
        if [[ -n $serial ]] && server_port=$port server_runs; then ANDROID_ADB_SERVER_PORT=$port ask_adb 10 disconnect "$serial" >/dev/null || true; fi
        rm -rf -- "${run:?}/$number"
    done
    end_servers "$run/servers"
    nft delete table inet "$TABLE" 2>/dev/null || true
    rm -f -- "$run/up"
}

word=${1:-}
case $word in
    up | status) ;;
    down | kill | start) [[ $(id -u) == 0 ]] || fail 'root is needed, for namespaces' ;;
    *) fail 'up N, down, status, kill SERIAL, start SERIAL' ;;
esac
if [[ ! $NET =~ ^([0-9]{1,3})\.([0-9]{1,3})$ ]] || ((10#${BASH_REMATCH[1]} > 255 || 10#${BASH_REMATCH[2]} > 255)); then
    fail "CHEAP_PHONES_NET is $NET: two numbers of an address are expected, as in 10.205"
fi
case $word in
    up)
        n=${2:-}
        if [[ ! $n =~ ^[0-9]+$ ]] || ((n < 1 || n > MOST)); then fail "up N: 1 to $MOST phones"; fi
        require_all
        take_turn
        down
        make_image
        trap down EXIT
        printf '%s %s\n' "$NET" "$server_port" >"$run/up"
        guard
        start_adb
        for ((number = 1; number <= n; number++)); do start_phone "$number"; done
        for ((number = 1; number <= n; number++)); do connect_phone "$number"; done
        trap - EXIT
        for ((number = 1; number <= n; number++)); do serial_of "$number"; done
        ;;
    down)
        take_turn
        down
        ;;
    status)
        for number in $(numbers); do
            printf '%-20s %s\n' "$(serial_of "$number")" "$(keeper_of "$number" >/dev/null && echo runs || echo ended)"
        done
        ;;
    kill)
        take_turn
        recall
        number=$(number_of "${2:-}")
        stop_phone "$number"
        ;;
    start)
        take_turn
        recall
        number=$(number_of "${2:-}")
        keeper_of "$number" >/dev/null && fail "$2 runs already"
        guard
        start_adb
        trap 'stop_phone "$number"' EXIT
        start_phone "$number"
        connect_phone "$number"
        trap - EXIT
        ;;
esac
