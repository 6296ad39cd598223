#!/bin/sh
# Installs what tenement is measured against, from Debian's packages. Their own
# services are never started: the benchmark runs each program itself, as a child
# on a loopback port with the settings in this directory.
set -eu

policy=/usr/sbin/policy-rc.d # see invoke-rc.d(8): 101 is "not allowed"
if [ ! -e "$policy" ]; then
	printf '#!/bin/sh\nexit 101\n' >"$policy"
	chmod 755 "$policy"
	trap 'rm -f "$policy"' EXIT
fi

export DEBIAN_FRONTEND=noninteractive
apt-get update -q
for package in nginx-light haproxy uwsgi-core uwsgi-plugin-python3 \
	systemd python3 uvicorn nodejs chromium; do
	# One that is missing is skipped, and so named in the report.
	command -v "$package" >/dev/null || apt-get install -q -y --no-install-recommends "$package" ||
		echo "install.sh: no package $package" >&2
done

# The newest Caddy that builds, of what is needed here; Debian's is years behind. bench
# looks for it there first.
cd "$(dirname "$0")"
mkdir -p ../../.cache/bin
CGO_ENABLED=0 go -C caddy build -trimpath -o ../../../.cache/bin/caddy . ||
	apt-get install -q -y --no-install-recommends caddy
