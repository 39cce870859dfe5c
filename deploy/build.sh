#!/bin/sh
# Builds the product's own image with the product: deploy/build.sh LAYOUT-DIR [FLAGS OF BUILD]
set -eu
out=${1:-out/image}
[ $# -gt 0 ] && shift
top=$(cd "$(dirname "$0")/.." && pwd)
context=$(mktemp -d)
trap 'rm -rf "$context"' EXIT
root=$context/rootfs
mkdir -p "$root/kaniko/.docker" "$root/etc/ssl/certs" "$root/root" "$root/w" "$root/tmp"
chmod 1777 "$root/tmp"
cp "$top/bin/kbuild-executor" "$root/kaniko/executor"
ln -s kaniko/executor "$root/kbuild-executor"
cp /etc/ssl/certs/ca-certificates.crt "$root/etc/ssl/certs/"
printf 'root:x:0:0:root:/root:/kaniko/executor\n' > "$root/etc/passwd"
printf 'root:x:0:\n' > "$root/etc/group"
# The same files give the same image, whenever it is built.
find "$context" -exec touch -h -d @0 {} +
mkdir -p "$(dirname "$out")"
rm -rf "$out"
"$top/bin/kbuild-sandbox" build -f "$top/deploy/Dockerfile" --context "$context" \
  --oci-layout-path "$out" --no-push "$@"
echo "image: $out"
