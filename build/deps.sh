#!/usr/bin/env bash
# Installs what Drystone needs to be built, run and tested on Debian 12: the
# packages of build/packages.txt, the npm packages of the lock files, the Go
# modules, and the linter at the version given. What is there is left alone.
set -euo pipefail
lint_version=$1
cd "$(dirname "$0")/.."

mapfile -t wanted < <(awk '!/^#/ && NF == 2 {print $2}' build/packages.txt)
missing=()
for p in "${wanted[@]}"; do
	dpkg-query -W -f='${db:Status-Status}' "$p" 2>/dev/null | grep -qx installed || missing+=("$p")
done
if ((${#missing[@]})); then
	if ((EUID != 0)); then
		echo "deps: these packages are missing and need root: ${missing[*]}" >&2
		exit 1
	fi
	echo "deps: installing ${missing[*]}"
	apt-get update -qq
	# No service of the packages may start: Drystone runs its own.
	DEBIAN_FRONTEND=noninteractive RUNLEVEL=1 apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
fi

for need in go node npm; do
	command -v "$need" >/dev/null || { echo "deps: $need is not installed (Go 1.26 and Node 20 or newer are needed)" >&2; exit 1; }
done
go mod download
for dir in frontend tests/browser; do
	[ -f "$dir/package-lock.json" ] || continue
	if ! cmp -s "$dir/package-lock.json" "$dir/node_modules/.installed-lock"; then
		echo "deps: npm packages of $dir"
		npm --prefix "$dir" ci --no-audit --no-fund --loglevel=error
		cp "$dir/package-lock.json" "$dir/node_modules/.installed-lock"
	fi
done

mkdir -p bin/tools
have=$(bin/tools/golangci-lint version --short 2>/dev/null || true)
if [ "v${have#v}" != "$lint_version" ] && [ ! -f "bin/tools/.lint-$lint_version" ]; then
	echo "deps: golangci-lint $lint_version"
	GOBIN=$PWD/bin/tools go install "github.com/golangci/golangci-lint/v2/cmd/golangci-lint@$lint_version"
	touch "bin/tools/.lint-$lint_version"
fi
