#!/usr/bin/env bash
# Makes bench/peers/.js with the JavaScript library whose matrix product is timed beside ours.
set -euo pipefail
cd "$(dirname "$0")"
mkdir -p .js
[ -f .js/package.json ] || echo '{ "private": true }' > .js/package.json
npm install --prefix .js --no-audit --no-fund --silent @jax-js/jax@0.1.25
echo "jax-js is ready in bench/peers/.js"
