#!/usr/bin/env bash
# Starts the server on free ports, explains three files of the repository through the client, stops the server.
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
target=${CARGO_TARGET_DIR:-target}/release
server=$target/code-explainer-server
client=$target/code-explainer
log=$(mktemp)
pid=''

clean_up() {
    if [[ -n $pid ]] && kill -0 "$pid" 2>/dev/null; then
        kill -KILL "$pid" 2>/dev/null || true
    fi
    rm -f "$log"
}
trap clean_up EXIT
trap 'exit 130' INT TERM

fail() {
    printf 'error: %s. The server said:\n' "$1" >&2
    tail -n 20 "$log" >&2
    exit 1
}

# address_of LISTENER: the address that the server's log gives for it, once it is there.
address_of() {
    sed -e 's/\x1b\[[0-9;]*m//g' "$log" | grep -m 1 "$1 listening" | grep -oE 'address="?[^" ]+' | sed -E 's/address="?//'
}

# http_status ADDRESS PATH: by bash alone, since a fresh machine may have no curl.
http_status() {
    local line
    exec 3<>"/dev/tcp/${1%:*}/${1##*:}" || return
    printf 'GET %s HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n' "$2" >&3
    read -r line <&3
    exec 3>&-
    [[ $line =~ ^HTTP/1\.[01]\ ([0-9]+) ]] && echo "${BASH_REMATCH[1]}"
}

echo "starting the server"
# Its log tells the addresses, whatever the user's environment says about logs.
CODE_EXPLAINER_LOG=info CODE_EXPLAINER_LOG_FORMAT=text "$server" serve --listen 127.0.0.1:0 --http-listen 127.0.0.1:0 </dev/null >"$log" 2>&1 &
pid=$!
grpc='' http='' ready=''
for ((tick = 0; tick < 600; tick++)); do
    kill -0 "$pid" 2>/dev/null || fail "the server ended while it started"
    grpc=$(address_of grpc) || grpc=''
    http=$(address_of http) || http=''
    if [[ -n $grpc && -n $http && $(http_status "$http" /readyz 2>/dev/null) == 200 ]]; then
        ready=yes
        break
    fi
    sleep 0.2
done
[[ -n $ready ]] || fail "the server was not ready within two minutes"
echo "the server is ready: gRPC on $grpc, HTTP on $http"

# So small a model says its sentences again and again without a penalty for it.
for file in samples/*; do
    printf '\n--- %s\n\n' "$file"
    "$client" explain --receipt --repetition-penalty 1.1 --server "http://$grpc" "$file" || fail "explaining $file failed"
done

printf '\nstopping the server\n'
kill -TERM "$pid"
status=0
wait "$pid" || status=$?
pid=''
((status == 0)) || fail "the server ended with $status instead of 0"
echo "the server has ended cleanly"
