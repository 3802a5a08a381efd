#!/usr/bin/env bash
# The first process of a cheap phone: makes its root of an image that nobody can write to, lets go of this machine's and of what it may do, and becomes
# adbd's parent. keeper.sh reads it to a shell that is root in namespaces of its own, and nobody outside.
#
#   boot.sh ROOT SERIAL
set -euo pipefail
root=$1 serial=$2

# What is mounted there already comes along, and stays as it is: it is not this user's.
mount --rbind "$root" "$root"
cd "$root"
mount -t proc proc proc
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
cd /
export PATH=/system/bin:/usr/bin
hash -r
umount -l /mnt
# The one thing that is left to do beyond a user's: to restart these namespaces.
exec /usr/bin/env -i PATH="$PATH" HOME=/data/local/tmp TMPDIR=/data/local/tmp ADBD_PORT=5555 \
    /usr/bin/setpriv --bounding-set=-all,+sys_boot --inh-caps=-all --no-new-privs --seccomp-filter /system/etc/no-vsock \
    /system/bin/first </dev/null
