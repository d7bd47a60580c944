#!/usr/bin/env bash
# make demo-down: stops the demo's cluster and removes everything it kept.
set -euo pipefail
cd "$(dirname "$0")/../.."
bin/drystone dev down --dir "$1"
