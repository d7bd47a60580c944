#!/usr/bin/env bash
# make test: everything that must pass. Each step says how long it took.
set -euo pipefail
cd "$(dirname "$0")/.."
export PATH="$PWD/bin/tools:$PATH"

step() {
	local name=$1 began=$SECONDS
	shift
	echo "== $name"
	if ! "$@"; then
		echo "== $name: FAILED after $((SECONDS - began)) s" >&2
		exit 1
	fi
	echo "== $name: $((SECONDS - began)) s"
}

step "frontend units" npm --prefix frontend test
step "model" go test -count=1 ./tests/model
step "packages" go test -timeout 30m -tags webkit2_41 ./backend/... ./desktop/... ./tests/guest/... ./tests/bugs
if ((EUID != 0)); then
	echo "tests/run: the clusters need root" >&2
	exit 1
fi
step "demo guest" tests/guest/build.sh bin/guest
step "power cuts" go test -count=1 ./tests/internal/...
# They wait more than they work, so two go on at a time.
step "clusters" go test -count=1 -parallel 2 -timeout 25m -skip "${NIGHTLY_CLUSTERS:-^$}" ./tests/cluster
step "conformance" go test -count=1 -timeout 10m ./tests/conformance
step "browser" tests/browser/run.sh
step "desktop" tests/desktop/run.sh
