#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Installs the packages of packages.txt that are missing. Says what it would need where it cannot.
set -u
list=$(dirname "$0")/packages.txt
missing=
# Where a distribution has no versioned package (Ubuntu, Debian 13), the plain one serves.
for p in $(cat "$list"); do
	[ "$(dpkg-query -W -f='${db:Status-Status}' "$p" 2>/dev/null)" = installed ] || missing="$missing $p"
done
[ -n "$missing" ] || exit 0
if [ "$(id -u)" != 0 ]; then
	echo "deps: missing packages:$missing; run as root: apt-get install$missing" >&2
	exit 1
fi
echo "deps: installing:$missing"
log=$(mktemp) || exit 1
trap 'rm -f "$log"' EXIT
if ! { apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $missing; } >"$log" 2>&1; then
	tail -5 "$log" >&2
	echo "deps: could not install:$missing" >&2
	exit 1
fi
