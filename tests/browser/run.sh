#!/usr/bin/env bash
# Runs the page's tests in Debian's Chromium against a real cluster of three nodes,
# which it starts and removes. Needs root, make build and tests/guest/build.sh.
set -euo pipefail
cd "$(dirname "$0")/../.."
dir=$(mktemp -d /var/tmp/dsw-XXXXXX)
chmod 711 "$dir"
cleanup() {
	bin/drystone dev down --dir "$dir/c" || true
	rm -rf "$dir"
}
trap cleanup EXIT
bin/drystone dev up --dir "$dir/c" --nodes 3 --disks 2 --disk-size 2G --base 127.0.210 --accel tcg
export DRYSTONE_URL DRYSTONE_USER DRYSTONE_PASSWORD DRYSTONE_GUEST
DRYSTONE_URL=$(jq -r .api "$dir/c/cluster.json")
DRYSTONE_USER=$(jq -r .user "$dir/c/cluster.json")
DRYSTONE_PASSWORD=$(jq -r .password "$dir/c/cluster.json")
DRYSTONE_GUEST=$PWD/bin/guest
npm --prefix tests/browser test
