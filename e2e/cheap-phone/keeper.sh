#!/usr/bin/env bash
# Keeps one cheap phone in namespaces of its own, which this process is in already, and starts it anew when it reboots. scripts/cheap-phones.sh starts it.
#
#   keeper.sh IMAGE ADDRESS SERIAL DATA_SIZE     once a line comes on the standard input, which says that its cable is there
set -euo pipefail
image=$1 address=$2 serial=$3 data_size=$4
here=$(dirname "${BASH_SOURCE[0]}")

# Nobody else sees what is mounted here, and it goes with the last process.
mount --make-rprivate /
read -r _
exec </dev/null
ip link set lo up
ip address add "$address/30" dev eth0
ip link set eth0 up
# Outlives a reboot, as a phone's does.
mount -t tmpfs -o "size=$data_size,mode=755" data "$image/data"
mkdir -p "$image/data/local/tmp"
while :; do
    status=0
    # What ends in it is all there is of it; and a process in it that asks for a reboot ends its first process alone.
    unshare --mount --pid --fork --kill-child "$here/boot.sh" "$image" "$serial" || status=$?
    # The kernel's word for a reboot in a namespace: the first process ended by SIGHUP.
    ((status == 129)) || break
    printf 'cheap-phone: %s reboots\n' "$serial"
    sleep 1
done
printf 'cheap-phone: %s ended (%s)\n' "$serial" "$status"
