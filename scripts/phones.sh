#!/usr/bin/env bash
# Emulated phones: arm64 machines by QEMU without KVM, with Debian's kernel and its real adbd, a battery and heat that can be set, a data partition that
# outlives a reboot, and the phones' build of `make android` able to run on a stand-in for Android's C library. Not Android: what stands in for it is in
# e2e/emulated-phone and node-agent/android/stand-in.
#
#   scripts/phones.sh up [N]           N of them (2), 1 to 8, known to the adb server of $ANDROID_ADB_SERVER_PORT; prints their serials, one a line
#   scripts/phones.sh down             ends all that `up` has started, whatever became of it; their data goes too
#   scripts/phones.sh status           a line for each
#   scripts/phones.sh kill SERIAL      one, without warning; `start SERIAL` brings it back with the data it had, and so does `up`
#
# POLYPHONY_PHONES_PORT (16550) is the port of the first on 127.0.0.1. Their consoles are target/android/phones/log/NUMBER.log, of the last `up`.
# Root is needed once, to install packages of Debian 12 that are missing.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
# Where a user's shell does not look for what makes file systems.
PATH=$PATH:/usr/sbin:/sbin

# Has dot products of bytes, and no products of matrices of them: what phones of 2018 to 2021 have. scripts/test-android.sh has the same.
readonly PROCESSOR=cortex-a76
readonly MEMORY_MIB=768
# Of this machine beside it, for the code that QEMU makes: by default up to a GiB.
readonly CODE_MIB=128
readonly DATA=512M
readonly MOST=8
# What two at once on one busy core stay far below.
readonly BOOT_SECONDS=180
readonly PACKAGES=(adb clang-19 lld-19 cpio e2fsprogs kmod make xz-utils gcc-12-aarch64-linux-gnu)
# Beside what these depend on.
readonly MODULES=(virtio_pci virtio_net virtio_blk virtio-rng crc32c_generic ext4)
# A phone on a cable, nearly full. The module shows voltage and current as they are here, in millionths: they make up 2 W.
readonly BATTERY="battery_capacity=80 battery_status=charging ac_online=off usb_online=on battery_voltage=3850000 battery_current=520000"

base=$(realpath -m "${CARGO_TARGET_DIR:-target}")/android
state=$base/phones
run=$state/run
cache=${POLYPHONY_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/polyphony}/phones
first_port=${POLYPHONY_PHONES_PORT:-16550}
# shellcheck source-path=SCRIPTDIR source=adb-server.sh
source scripts/adb-server.sh

say() { printf 'phones: %s\n' "$1" >&2; }
fail() { say "$1"; exit 1; }
skip() { printf 'skipped: phones need %s\n' "$1"; exit 0; }

# === What is made once ===

# fetch FOLDER SUITE ARCHITECTURE PACKAGE…: unpacked there, once.
fetch() {
    local folder=$1 packages=${*:4}
    shift
    [[ ! -d $cache/$folder ]] || return 0
    say "fetching $folder from Debian's $1"
    rm -rf -- "$cache/$folder.new"
    # shellcheck disable=SC2154 # set by what is sourced
    unpack_packages "$1" "$2" "$cache/$folder.new" "${@:3}" || skip "${packages#--with-dependencies } of Debian's $1 ($apt_said)"
    mv -- "$cache/$folder.new" "$cache/$folder"
}

# The kernel, the modules that a phone needs in the order they are taken in, and the battery: the kernel's own test of power supplies, which Debian does
# not build.
make_kernel() {
    [[ ! -d $cache/kernel ]] || return 0
    local scratch=$cache/kernel.scratch new=$cache/kernel.new release headers module
    rm -rf -- "$scratch" "$new"
    mkdir -p "$new"
    say "fetching Debian 12's kernel for arm64, its headers and its source; 280 MB, once"
    # In one suite two releases are found at times; the archive says them by name alone.
    unpack_packages bookworm arm64 "$scratch" '^linux-image-6\.1\.0-[0-9]+-arm64$' '^linux-headers-6\.1\.0-[0-9]+-(arm64|common)$' ||
        skip "Debian's kernel for arm64 ($apt_said)"
    unpack_packages bookworm "$(dpkg --print-architecture)" "$scratch/build" linux-kbuild-6.1 linux-source-6.1 ||
        skip "Debian's linux-kbuild-6.1 and linux-source-6.1 ($apt_said)"
    release=$(find "$scratch/lib/modules" -mindepth 1 -maxdepth 1 -printf '%f\n' | sort -V | tail -n 1)
    headers=$scratch/usr/src/linux-headers-$release
    # The headers look for what builds beside them, and for each other at /usr/src.
    mv -- "$scratch/build/usr/lib/linux-kbuild-6.1" "$scratch/usr/lib/"
    sed -i "s|/usr/src/|$scratch/usr/src/|" "$headers/Makefile"
    mkdir "$scratch/battery"
    tar -xJOf "$scratch/build/usr/src/linux-source-6.1.tar.xz" --occurrence=1 linux-source-6.1/drivers/power/supply/test_power.c >"$scratch/battery/test_power.c"
    echo 'obj-m := test_power.o' >"$scratch/battery/Makefile"
    make -C "$headers" M="$scratch/battery" ARCH=arm64 CROSS_COMPILE=aarch64-linux-gnu- CC=aarch64-linux-gnu-gcc-12 modules >"$cache/battery.log" 2>&1 ||
        fail "the battery's module does not build: $cache/battery.log"

    depmod -b "$scratch" "$release"
    for module in "${MODULES[@]}"; do
        modprobe -d "$scratch" -S "$release" --show-depends "$module" >"$scratch/needed" || fail "Debian's kernel $release has no module $module"
        awk '$1 == "insmod" { print $2 }' "$scratch/needed" >>"$scratch/order"
    done
    awk '!seen[$0]++' "$scratch/order" | while read -r module; do
        cp -- "$module" "$new/"
        basename "$module"
    done >"$new/order"
    cp -- "$scratch/battery/test_power.ko" "$new/"
    cp -- "$scratch/boot/vmlinuz-$release" "$new/vmlinuz"
    printf '%s\n' "$release" >"$new/release"
    rm -rf -- "$scratch"
    mv -- "$new" "$cache/kernel"
}

# Sets `qemu`, the command: this machine's, or else Debian's with all its libraries, since another of its packages may be in the way of an installed one.
find_qemu() {
    local folder=$cache/qemu triple
    if command -v qemu-system-aarch64 >/dev/null; then
        qemu=(qemu-system-aarch64)
        return
    fi
    fetch qemu bookworm "$(dpkg --print-architecture)" --with-dependencies qemu-system-arm
    triple=$(uname -m)-linux-gnu
    qemu=("$(compgen -G "$folder/lib/$triple/ld-linux-*.so.*")" --library-path "$folder/lib/$triple:$folder/usr/lib/$triple"
        "$folder/usr/bin/qemu-system-aarch64" -L "$folder/usr/share/qemu")
}

# What a phone's memory holds when it starts. Made anew each time, of what is there.
make_initrd() {
    local root=$state/root libraries=usr/lib/aarch64-linux-gnu
    rm -rf -- "$root"
    mkdir -p "$root"/{dev,proc,sys,run,data,etc,usr/bin,usr/sbin,usr/lib/modules,"$libraries"}
    ln -s usr/bin usr/sbin usr/lib "$root/"
    cp -- "$cache/debian/usr/lib/ld-linux-aarch64.so.1" "$root/usr/lib/"
    cp -a -- "$cache/debian/$libraries"/{*.so*,android} "$root/$libraries/"
    cp -a -- "$cache/debian/usr/lib/android-sdk" "$root/usr/lib/"
    cp -- "$cache/debian/usr/bin/busybox" "$root/usr/bin/"
    cp -- "$cache"/kernel/*.ko "$root/usr/lib/modules/"
    { cat "$cache/kernel/order" && printf 'test_power.ko %s\n' "$BATTERY"; } >"$root/usr/lib/modules/order"
    printf 'root:x:0:0:root:/:/system/bin/sh\n' >"$root/etc/passwd"
    printf 'root:x:0:\n' >"$root/etc/group"
    cp -a -- "$base/stand-in/aarch64/system" "$root/"
    cp -a -- e2e/emulated-phone/. "$root/"
    # As it is: an emulated processor takes longer to unpack it than to read it.
    (cd "$root" && find . | cpio -o -H newc -R 0:0 --quiet) >"$state/initrd.new"
    mv -- "$state/initrd.new" "$state/initrd"
    rm -rf -- "$root"
}

make_all() {
    # shellcheck source-path=SCRIPTDIR source=debian-packages.sh
    source scripts/debian-packages.sh
    # shellcheck source-path=SCRIPTDIR source=android-stand-in.sh
    source scripts/android-stand-in.sh
    require_packages phones "${PACKAGES[@]}"
    mkdir -p "$cache" "$state/log" "$run"
    # Other folders may make the same.
    exec 8>"$cache/lock"
    flock 8
    find_qemu
    fetch debian trixie arm64 --with-dependencies adbd busybox-static
    make_kernel
    exec 8>&-
    build_stand_in phones "$base" aarch64
    make_initrd
}

# === One phone ===

numbers() { [[ ! -d $run ]] || find "$run" -mindepth 1 -maxdepth 1 -type d -printf '%f\n' | sort -n; }

serial_of() { printf '127.0.0.1:%s\n' "$(cat "$run/$1/port")"; }

number_of() {
    local number
    for number in $(numbers); do
        [[ $(serial_of "$number") != "$1" ]] || { echo "$number"; return; }
    done
    fail "no emulated phone is called $1: \`status\` lists them"
}

# machine_of NUMBER: its process, if that is still the one that was started, by the disk that it has.
machine_of() {
    local pid
    pid=$(cat "$run/$1/pid" 2>/dev/null) && [[ -n $pid ]] || return 1
    grep -zqF "file=$run/$1/data.img," "/proc/$pid/cmdline" 2>/dev/null && echo "$pid"
}

start_phone() {
    local number=$1 folder=$run/$1 port
    mkdir -p "$folder"
    [[ -f $folder/port ]] || printf '%s\n' $((first_port + number - 1)) >"$folder/port"
    port=$(cat "$folder/port")
    if [[ ! -f $folder/data.img ]]; then
        rm -f -- "$folder/data.new"
        mkfs.ext4 -q -m 0 -L data "$folder/data.new" "$DATA" >"$folder/start.log" 2>&1 || fail "no data partition: $(tail -n 1 "$folder/start.log")"
        mv -- "$folder/data.new" "$folder/data.img"
    fi
    # It keeps nothing of this script's open, and its descriptors are no pipe that somebody reads to its end.
    "${qemu[@]}" -name "phone-$number" -machine virt -accel "tcg,tb-size=$CODE_MIB" -cpu "$PROCESSOR" -smp 1 -m "$MEMORY_MIB" -no-user-config -nodefaults \
        -kernel "$cache/kernel/vmlinuz" -initrd "$state/initrd" -append "console=ttyAMA0 quiet panic=-1 rdinit=/init phone=$number" -display none \
        -chardev "file,id=console,path=$state/log/$number.log,append=on" -serial chardev:console \
        -netdev "user,id=net,restrict=on,hostfwd=tcp:127.0.0.1:$port-:5555" -device virtio-net-pci,netdev=net,romfile= \
        -drive "if=none,id=data,format=raw,file=$folder/data.img,cache=writeback" -device virtio-blk-pci,drive=data -device virtio-rng-pci \
        -daemonize -pidfile "$folder/pid" 9>&- >"$folder/start.log" 2>&1 || fail "phone $number does not start: $(tail -n 1 "$folder/start.log")"
}

# Waits until adb gets an answer from it.
await_phone() {
    local number=$1 deadline=$2 serial
    serial=$(serial_of "$number")
    while ((SECONDS < deadline)); do
        machine_of "$number" >/dev/null || fail "phone $number has ended: $(tail -n 3 "$state/log/$number.log")"
        [[ $(ask_adb 20 -s "$serial" shell getprop sys.boot_completed) != 1 ]] || return 0
        # What it knows of a phone that went is in the way of the next.
        ask_adb 10 disconnect "$serial" >/dev/null || true
        ask_adb 20 connect "$serial" >/dev/null || true
        sleep 0.5
    done
    fail "phone $number did not answer adb in $BOOT_SECONDS s: $(tail -n 3 "$state/log/$number.log")"
}

# is_gone PID: with all that it had open. Its command line goes before that, and its ports after.
is_gone() {
    local stat
    stat=$(cat "/proc/$1/stat" 2>/dev/null) || return 0
    [[ ${stat##*) } == [ZX]* ]]
}

# Its data is kept.
stop_phone() {
    local pid waited=0
    if pid=$(machine_of "$1"); then
        kill -KILL "$pid"
        until is_gone "$pid"; do
            ((waited++ < 500)) || fail "phone $1, process $pid, does not end"
            sleep 0.02
        done
    fi
    rm -f -- "$run/$1/pid"
}

# === Words ===

take_turn() {
    mkdir -p "$state"
    exec 9>"$state/lock"
    flock -w "$((2 * BOOT_SECONDS))" 9 || fail 'another of these runs, and does not end'
}

start_adb() { start_server "$run/servers" || fail 'the adb server does not start'; }

down() {
    local number
    for number in $(numbers); do
        stop_phone "$number"
        if [[ -f $run/$number/port ]] && server_runs; then ask_adb 10 disconnect "$(serial_of "$number")" >/dev/null || true; fi
        rm -rf -- "${run:?}/$number"
    done
    end_servers "$run/servers"
}

status() {
    local number serial pid answer battery charging heat free
    # shellcheck disable=SC2016 # for the phone's shell
    local look='cd /sys/class/power_supply/test_battery && read -r heat </sys/class/thermal/thermal_zone0/temp &&
        echo "$(cat capacity)%;$(cat status);$((heat / 1000))°C;$(df -m /data | awk "END { print \$4 }") MiB"'
    printf '%-17s %-8s %-8s %-9s %-13s %-6s %s\n' SERIAL PROCESS ADB BATTERY STATUS HEAT 'DATA FREE'
    for number in $(numbers); do
        serial=$(serial_of "$number")
        pid=$(machine_of "$number") || { printf '%-17s %-8s\n' "$serial" ended; continue; }
        answer=$(server_runs && ask_adb 10 -s "$serial" shell "$look") || answer=
        if [[ -n $answer ]]; then
            IFS=';' read -r battery charging heat free <<<"$answer"
            printf '%-17s %-8s %-8s %-9s %-13s %-6s %s\n' "$serial" "$pid" answers "$battery" "$charging" "$heat" "$free"
        else
            printf '%-17s %-8s %s\n' "$serial" "$pid" silent
        fi
    done
}

case ${1:-} in
    up)
        n=${2:-2}
        [[ $n =~ ^[0-9]+$ ]] && ((n >= 1 && n <= MOST)) || fail "up [N]: 1 to $MOST phones"
        take_turn
        make_all
        start_adb
        started=()
        # What was begun here and does not come up is not left behind.
        trap 'for number in "${started[@]}"; do stop_phone "$number"; done' EXIT
        for ((number = 1; number <= n; number++)); do
            machine_of "$number" >/dev/null && continue
            : >"$state/log/$number.log"
            started+=("$number")
            start_phone "$number"
        done
        deadline=$((SECONDS + BOOT_SECONDS))
        for ((number = 1; number <= n; number++)); do await_phone "$number" "$deadline"; done
        trap - EXIT
        for ((number = 1; number <= n; number++)); do serial_of "$number"; done
        ;;
    down)
        take_turn
        down
        ;;
    status) status ;;
    kill)
        take_turn
        number=$(number_of "${2:-}")
        stop_phone "$number"
        ;;
    start)
        take_turn
        number=$(number_of "${2:-}")
        machine_of "$number" >/dev/null && fail "$2 runs already"
        make_all
        start_adb
        # What does not come up is not left behind.
        trap 'stop_phone "$number"' EXIT
        start_phone "$number"
        await_phone "$number" $((SECONDS + BOOT_SECONDS))
        trap - EXIT
        ;;
    *) fail 'up [N], down, status, kill SERIAL, start SERIAL' ;;
esac
