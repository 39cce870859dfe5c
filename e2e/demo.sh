#!/bin/bash
# Builds a base image and examples/hello on it, from nothing but Debian's
# busybox-static, through a registry of its own, and shows what came out.
set -euo pipefail
cd "$(dirname "$0")/.."
bin=${KBUILD_BIN:-bin}
work=$(mktemp -d)
registry=
cleanup() {
  [ -z "$registry" ] || { kill "$registry" && wait "$registry"; } 2>/dev/null || true
  rm -rf "$work"
}
trap cleanup EXIT
export XDG_CACHE_HOME=$work/cache
title() { printf '\n\033[1m== %s\033[0m\n' "$*"; }

title "a registry on the loopback interface"
port=$(shuf -i 20000-29999 -n 1)
host=127.0.0.1:$port
cat >"$work/registry.yml" <<EOF
version: 0.1
log: {level: error, accesslog: {disabled: true}}
storage: {filesystem: {rootdirectory: $work/registry}}
http: {addr: "$host"}
EOF
docker-registry serve "$work/registry.yml" >"$work/registry.log" 2>&1 &
registry=$!
for _ in $(seq 100); do
  (: </dev/tcp/127.0.0.1/"$port") 2>/dev/null && break
  kill -0 "$registry" || { cat "$work/registry.log"; exit 1; }
  sleep 0.1
done
echo "$host"

title "the base image, FROM scratch: examples/hello/base"
cp -r examples/hello/base "$work/base"
cp /bin/busybox "$work/base/busybox"
"$bin/kbuild-sandbox" build --insecure -t "$host/demo/busybox" "$work/base" 2>&1

title "a build of two stages on it: examples/hello"
"$bin/kbuild-sandbox" build --insecure --insecure-pull --build-arg BASE="$host/demo/busybox" \
  --oci-layout-path "$work/image" -t "$host/demo/hello:1" examples/hello 2>&1

blob() { cat "$work/image/blobs/sha256/${1#sha256:}"; }
manifest=$(blob "$(jq -r '.manifests[0].digest' "$work/image/index.json")")
config=$(blob "$(jq -r .config.digest <<<"$manifest")")

title "its layers, as the registry has them"
[ "$(curl -fsS -H "Accept: $(jq -r .mediaType <<<"$manifest")" "http://$host/v2/demo/hello/manifests/1")" = "$manifest" ] ||
  { echo "the registry has another manifest"; exit 1; }
jq -r '.layers[] | "\(.digest)  \(.size) bytes"' <<<"$manifest"

title "its config"
jq '{architecture, os, config, history: [.history[].created_by]}' <<<"$config"

title "what a RUN step saw of its kernel (srv/www/kernel.txt in the image)"
while read -r digest; do
  blob "$digest" | tar -xzO srv/www/kernel.txt 2>/dev/null && break
done < <(jq -r '.layers[].digest' <<<"$manifest") | tee "$work/kernel.txt"
grep -qi gvisor "$work/kernel.txt" || { echo "this was not gVisor"; exit 1; }
echo "(the host's is: $(uname -srv))"
