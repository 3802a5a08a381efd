#!/usr/bin/env bash
# The first process of a cheap phone: makes its root of an image that nobody can write to, and becomes adbd's parent. keeper.sh starts it.
#
#   boot.sh IMAGE SERIAL
set -euo pipefail
image=$1 serial=$2

mount --make-rprivate /
mount --rbind "$image" "$image"
mount -o remount,bind,ro "$image"
cd "$image"
mount -t proc proc proc
# The machine's own switches are not the phone's to turn.
mount -o bind,ro proc/sys proc/sys
[[ ! -e proc/sysrq-trigger ]] || mount --bind /dev/null proc/sysrq-trigger
mount -t sysfs -o ro sys sys
mount -t tmpfs -o mode=755 dev dev
for node in null zero full random urandom tty; do
    : >"dev/$node"
    mount --bind "/dev/$node" "dev/$node"
done
mkdir dev/pts dev/shm
mount -t devpts -o newinstance,ptmxmode=666 devpts dev/pts
ln -s pts/ptmx dev/ptmx
mount -t tmpfs -o size=1m run run
printf '%s\n' "$serial" >run/serial
pivot_root . mnt
exec /usr/bin/env -i PATH=/system/bin:/usr/bin HOME=/data/local/tmp TMPDIR=/data/local/tmp ADBD_PORT=5555 /system/bin/first
