#!/bin/sh
# Gets the programs that the tests with real servers run, where Debian's packages can be installed.
# What is missing all the same, the tests name: they fail where CI=true and are skipped elsewhere.
set -eu

missing=""
for pair in curl:curl openssl:openssl wrk:wrk strace:strace mvn:maven java:default-jre-headless; do
    command -v "${pair%%:*}" >/dev/null || missing="$missing ${pair#*:}"
done
[ -n "$missing" ] || exit 0
if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then
    echo "not installed here:$missing" >&2
    exit 0
fi
export DEBIAN_FRONTEND=noninteractive
apt-get update -qq
# shellcheck disable=SC2086 - a list of names
apt-get install -qq -y --no-install-recommends $missing >/dev/null
