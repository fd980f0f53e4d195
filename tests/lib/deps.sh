#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Installs the packages of packages.txt that are missing. Says what it would need where it cannot.
# A line a|b is satisfied by either: the one that is installed, or else the first that the distribution has.
set -u
list=$(dirname "$0")/packages.txt
installed=" $(dpkg-query -W -f='${db:Status-Status} ${Package}\n' 2>/dev/null | sed -n 's/^installed //p' | tr '\n' ' ')"

# A name that is only provided by another package (bpftool on Ubuntu 24.04) has no candidate of its own.
available() {
	LC_ALL=C apt-cache policy "$1" 2>/dev/null | grep -q '^  Candidate: [^(]'
}

# chosen LINE: prints the name to install for it; fails, and prints the first, where none is available.
chosen() {
	IFS='|'
	for p in $1; do
		available "$p" && echo "$p" && return 0
	done
	echo "${1%%|*}"
	return 1
}

missing=
for line in $(cat "$list"); do
	IFS='|'
	for p in $line; do
		case $installed in *" $p "*) continue 2 ;; esac
	done
	missing="$missing $line"
	unset IFS
done
unset IFS
[ -n "$missing" ] || exit 0
if [ "$(id -u)" != 0 ]; then
	names=
	for line in $missing; do names="$names $(chosen "$line")"; done
	echo "deps: missing packages:$names; run as root: apt-get install$names" >&2
	exit 1
fi
log=$(mktemp) || exit 1
trap 'rm -f "$log"' EXIT
if ! apt-get update -qq >"$log" 2>&1; then
	tail -5 "$log" >&2
	echo "deps: could not read the package lists; missing:$missing" >&2
	exit 1
fi
names=
for line in $missing; do
	if ! p=$(chosen "$line"); then
		echo "deps: this distribution has no package $line" >&2
		exit 1
	fi
	names="$names $p"
done
echo "deps: installing:$names"
if ! DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $names >"$log" 2>&1; then
	tail -5 "$log" >&2
	echo "deps: could not install:$names" >&2
	exit 1
fi
