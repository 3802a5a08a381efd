#!/usr/bin/env bash
# Cheap phones are what scripts/cheap-phones.sh says: two of them, who they are on this machine, who reaches them, and what becomes of them, of others' and
# of what a run that was killed has left. As root.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
PATH=$PATH:/usr/sbin:/sbin

# Not those of a person.
export ANDROID_ADB_SERVER_PORT=${POLYPHONY_TEST_ADB_PORT:-15039} CHEAP_PHONES_NET=${CHEAP_PHONES_NET:-10.207}
readonly ONE=$CHEAP_PHONES_NET.1.2:5555
readonly TWO=$CHEAP_PHONES_NET.2.2:5555
# Who is nobody, on any Debian.
readonly NOBODY=65534
# What the kernel calls CAP_SYS_BOOT alone.
readonly RESTART=0000000000400000
state=$(realpath -m "${CARGO_TARGET_DIR:-target}")/android/cheap-phones
run=$state/run
cables=cheap${CHEAP_PHONES_NET/./-}-
adb=${ADB:-adb}

[[ -z $(scripts/cheap-phones.sh status) ]] ||
    { echo 'test-cheap-phones: phones of this folder run already: `scripts/cheap-phones.sh down` ends them' >&2; exit 1; }
if [[ $(id -u) != 0 ]]; then scripts/cheap-phones.sh up 1; exit; fi
scratch=$(mktemp -d)
foreign=${cables}9
listener=''
trap '[[ -z $listener ]] || kill "$listener" 2>/dev/null || true; scripts/cheap-phones.sh down; ip link delete "$foreign" 2>/dev/null || true; rm -rf -- "$scratch"' EXIT
# shellcheck source-path=SCRIPTDIR source=expect.sh
source scripts/expect.sh

on() { timeout 60 "$adb" -s "$1" shell "$2"; }
# Nothing where it does not come in time: from one that is gone there may not even be an end.
answer_of() { timeout 5 "$adb" -s "$1" shell 'echo here' 2>/dev/null || true; }
as_nobody() { setpriv --reuid "$NOBODY" --regid "$NOBODY" --clear-groups --inh-caps=-all "$@"; }
# Whether a connection is taken within two seconds.
reaches() { timeout 2 bash -c "exec 3<>/dev/tcp/$1/$2"; }
export -f reaches
# Writes its port into a file, and into another who has come.
listen() {
    exec perl -MIO::Socket::INET -e '
        my ($address, $folder) = @ARGV;
        my $server = IO::Socket::INET->new(LocalAddr => $address, LocalPort => 0, Proto => "tcp", Listen => 5) or die "$address: $!";
        my $write = sub { open(my $file, $_[0], $_[1]) or die "$_[1]: $!"; print $file "$_[2]\n"; close($file) };
        $write->(">", "$folder/port.new", $server->sockport);
        rename("$folder/port.new", "$folder/port") or die $!;
        while (my $comer = $server->accept) { $write->(">>", "$folder/heard", $comer->peerhost); }' "$1" "$scratch"
}
await_file() {
    for ((attempt = 0; attempt < 100; attempt++)); do
        [[ ! -e $1 ]] || { echo there; return; }
        sleep 0.1
    done
    echo 'not there'
}
# A capability of any process in a phone that is more than that.
more_than_restart() { on "$1" "cat /proc/[0-9]*/status" | awk -v least="$RESTART" '/^Cap(Prm|Eff|Bnd|Inh|Amb):/ && $2 != least && $2 !~ /^0*$/'; }
user_of() { on "$1" 'read -r in out n </proc/self/uid_map; echo "$in $((out >= 1900000000)) $n"'; }
# By the library and the program that are in the phone; what is asked is what perl's socket says, as its exit status.
socket_in_phone() {
    local debian=$state/debian
    "$debian/usr/lib64/ld-linux-x86-64.so.2" --library-path "$debian/usr/lib/x86_64-linux-gnu" "$debian/usr/bin/setpriv" \
        --no-new-privs --seccomp-filter "$state/image/system/etc/no-vsock" perl -e 'socket(my $socket, $ARGV[0], 1, 0) or exit $!' "$1"
}
tables() { nft list tables | grep -c cheap_phones_ || true; }
links() { ip -brief link | grep -c "^$cables" || true; }
# Waits until it answers, and says since when its first process runs.
is_back() {
    local before=$1
    for ((attempt = 0; attempt < 100; attempt++)); do
        timeout 10 "$adb" disconnect "$ONE" >/dev/null 2>&1 || true
        timeout 10 "$adb" connect "$ONE" >/dev/null 2>&1 || true
        [[ -z $(born) || $(born) == "$before" ]] || { echo back; return; }
        sleep 0.1
    done
    echo 'not back'
}
born() { on "$ONE" 'cut -d " " -f 22 /proc/1/stat' 2>/dev/null || true; }

tables_before=$(tables)
serials=$(scripts/cheap-phones.sh up 2)
[[ $serials != skipped:* ]] || { printf '%s\n' "$serials"; exit 0; }
is 'two are up' "$ONE"$'\n'"$TWO" echo "$serials"
is 'each has a name of its own' 'cheap-1 cheap-2' echo "$(on "$ONE" 'getprop ro.serialno') $(on "$TWO" 'getprop ro.serialno')"
is 'an exit status comes back' 7 status_of on "$ONE" 'exit 7'

is 'its root is a user of its own outside' '0 1 1' user_of "$ONE"
is 'and may do nothing but restart it' '' more_than_restart "$ONE"
is 'a file system is not mounted' 1 status_of on "$ONE" 'mount -t tmpfs none /data'
is 'its system is not written to' 1 status_of on "$ONE" 'echo >/system/bin/more'
listen "$CHEAP_PHONES_NET.1.1" &
listener=$!
is 'somebody listens where a phone sees this machine' there await_file "$scratch/port"
is 'this machine reaches that' 0 status_of reaches "$CHEAP_PHONES_NET.1.1" "$(cat "$scratch/port")"
is 'a phone does not' 1 status_of on "$ONE" "nc -w 1 $CHEAP_PHONES_NET.1.1 $(cat "$scratch/port") </dev/null"
is 'and is not heard' "$CHEAP_PHONES_NET.1.1" cat "$scratch/heard"
kill "$listener"
listener=''
is "this machine's root is not there" '' on "$ONE" 'ls /mnt'
is 'no program of it has a socket for virtual machines' 97 status_of socket_in_phone 40
is 'but others' 0 status_of socket_in_phone 2
is 'root reaches it' 0 status_of reaches "${ONE%:*}" 5555
is 'another user does not' 124 status_of as_nobody timeout 2 bash -c "reaches ${ONE%:*} 5555"
is 'root reaches its adb server' 0 status_of reaches 127.0.0.1 "$ANDROID_ADB_SERVER_PORT"
is 'another user does not' 1 status_of as_nobody bash -c "reaches 127.0.0.1 $ANDROID_ADB_SERVER_PORT"

before=$(born)
on "$ONE" 'echo kept >/data/local/tmp/file'
on "$ONE" reboot >/dev/null 2>&1 || true
is 'it reboots' back is_back "$before"
is 'its data outlives that' kept on "$ONE" 'cat /data/local/tmp/file'

is 'who is nobody cannot be killed' 1 status_of scripts/cheap-phones.sh kill "$CHEAP_PHONES_NET.3.2:5555"
is 'nor started' 1 status_of scripts/cheap-phones.sh start "$CHEAP_PHONES_NET.3.2:5555"
is 'one that runs is not started' 1 status_of scripts/cheap-phones.sh start "$TWO"
is 'and goes on' 0 status_of on "$TWO" true
is 'one is killed' 0 status_of scripts/cheap-phones.sh kill "$TWO"
is 'and nobody answers' '' answer_of "$TWO"
is 'it does not start for another adb server' 1 status_of env ANDROID_ADB_SERVER_PORT=$((ANDROID_ADB_SERVER_PORT + 1)) scripts/cheap-phones.sh start "$TWO"
is 'nor in another net' 1 status_of env CHEAP_PHONES_NET=10.199 scripts/cheap-phones.sh start "$TWO"
is 'it starts again by what `up` was told' 0 status_of env -u ANDROID_ADB_SERVER_PORT -u CHEAP_PHONES_NET scripts/cheap-phones.sh start "$TWO"
is 'and answers' 0 status_of on "$TWO" true
is 'another user does not reach its adb server for that' 1 status_of as_nobody bash -c "reaches 127.0.0.1 $ANDROID_ADB_SERVER_PORT"

# Two at once: each finds the phones of the other whole, or none.
scripts/cheap-phones.sh up 2 >"$scratch/first" 2>&1 &
first=$!
is 'another `up` waits for its turn' "$serials" scripts/cheap-phones.sh up 2
first_ended=0
wait "$first" || first_ended=$?
is 'and so did the first' 0 echo "$first_ended"
is 'which had its phones' "$serials" cat "$scratch/first"

# What was left by an `up` whose phone ended at once, or that was killed.
on "$ONE" true
read -r lost _ <"$run/2/keeper"
printf '%s \n' $$ >"$run/2/keeper"
: >"$scratch/empty" && mkdir "$run/3" && cp "$scratch/empty" "$run/3/keeper"
ip link add "$foreign" type veth peer name foreign-peer
printf '%s\n' "$foreign" >"$run/3/cable"
is 'they are ended, whatever is noted of them' 0 status_of scripts/cheap-phones.sh down
kill -KILL -- "-$lost"
is 'none is left' '' scripts/cheap-phones.sh status
is "another's cable is" 1 links
is 'nobody listens' '' listening "$ANDROID_ADB_SERVER_PORT"
is 'no rule is left' "$tables_before" tables
ip link set "$foreign" name "${cables}1"
is "another's cable is in the way, and that is told" 1 status_of scripts/cheap-phones.sh up 1
is 'and is still there' 1 links
is 'nothing else is left' '' scripts/cheap-phones.sh status
foreign=${cables}1
is 'to end none is no fault' 0 status_of scripts/cheap-phones.sh down
told 'test-cheap-phones: on a stand-in for Android'\''s C library, not on Android'
