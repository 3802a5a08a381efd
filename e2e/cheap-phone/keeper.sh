#!/usr/bin/env bash
# Keeps one cheap phone in namespaces of its own, which this process is in already, and starts it anew when it reboots. scripts/cheap-phones.sh starts it.
#
#   keeper.sh IMAGE ADDRESS SERIAL DATA_SIZE USER     once a line comes on the standard input, which says that its cable is there
#
# It is this machine's root; the phone is USER, who is nobody else here, and root in the phone alone.
set -euo pipefail
image=$1 address=$2 serial=$3 data_size=$4 user=$5
boot=$(realpath "$(dirname "${BASH_SOURCE[0]}")")/boot.sh
# The phone's user may not be let into the folder that the image is in, and is let in here. Nobody else sees what is mounted.
readonly ROOT=/mnt

mount --make-rprivate /
# Who was to say so may have been ended.
read -r -t 60 _ || { echo 'cheap-phone: nobody has said that its cable is there'; exit 1; }
exec </dev/null
ip link set lo up
ip address add "$address/30" dev eth0
ip link set eth0 up
# What is mounted out here is not the phone's to mount anew.
mount --bind "$image" "$ROOT"
mount -o remount,bind,ro "$ROOT"
# Outlives a reboot, as a phone's does.
mount -t tmpfs -o "size=$data_size,mode=755,uid=$user,gid=$user,nosuid,nodev" data "$ROOT/data"
mkdir -p "$ROOT/data/local/tmp"
chown -R "$user:$user" "$ROOT/data/local"
# Of its own network.
mount -t sysfs -o ro,nosuid,nodev,noexec sys "$ROOT/sys"
cd "$ROOT"
while :; do
    status=0
    # What ends in it is all there is of it; and a process in it that asks for a reboot ends its first process alone.
    setpriv --reuid "$user" --regid "$user" --clear-groups --inh-caps=-all \
        unshare --user --map-root-user --mount --pid --ipc --uts --fork --kill-child \
        bash -s -- "$ROOT" "$serial" <"$boot" || status=$?
    # The kernel's word for a reboot in a namespace: the first process ended by SIGHUP.
    ((status == 129)) || break
    printf 'cheap-phone: %s reboots\n' "$serial"
    sleep 1
done
printf 'cheap-phone: %s ended (%s)\n' "$serial" "$status"
