# shellcheck shell=bash
# Sourced by what has to do with adb: the program, and the server of $ANDROID_ADB_SERVER_PORT, which is ended only by who started it.

adb=${ADB:-adb}
server_port=${ANDROID_ADB_SERVER_PORT:-5037}

# ask_adb SECONDS ARGUMENT…: with an end. A server that it starts keeps nothing of the script's open; 9 is its turn.
ask_adb() { timeout --kill-after=5 "$1" "$adb" "${@:2}" 9>&- 2>/dev/null; }

# Most words of adb's start a server where none runs: who does not mean to asks this before.
server_runs() { (exec 3<>"/dev/tcp/127.0.0.1/$server_port") 2>/dev/null; }

# start_server FILE: where none runs, and writes into FILE that it is ours.
start_server() {
    server_runs && return
    printf '%s\n' "$server_port" >>"$1"
    ask_adb 20 start-server >/dev/null
}

# end_servers FILE: those that are ours by FILE.
end_servers() {
    local port
    [[ -f $1 ]] || return 0
    while read -r port; do
        ANDROID_ADB_SERVER_PORT=$port ask_adb 10 kill-server >/dev/null </dev/null || true
    done < <(sort -u "$1")
    rm -f -- "$1"
}
