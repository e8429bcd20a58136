#!/bin/bash
# packages.sh [PACKAGE...]: puts on what building and testing mmrepl needs, and the packages named.
# As root on Debian it installs what is missing by apt, and neither starts a service nor makes a cluster:
# what runs on this machine stays as it is. As another user it only says what is missing.
set -euo pipefail

major=${PG_MAJOR:-}
if [ -z "$major" ] && [ -n "${PG_CONFIG:-}" ]; then
	major=$("$PG_CONFIG" --version | sed 's/[^0-9]*\([0-9]*\).*/\1/')
fi
if [ -z "$major" ]; then
	# the newest that is here to build with, else what this Debian calls postgresql
	major=$(ls -d /usr/lib/postgresql/*/lib/pgxs/src/makefiles/pgxs.mk 2>/dev/null |
		cut -d/ -f5 | sort -n | tail -n 1) || true
fi
if [ -z "$major" ] && command -v apt-cache >/dev/null; then
	[ "$(id -u)" != 0 ] || apt-get update -q >/dev/null || true
	major=$(apt-cache show postgresql 2>/dev/null | sed -n 's/^Version: \([0-9]*\)+.*/\1/p' | head -n 1) || true
fi
major=${major:-15}

wanted="gcc libc6-dev make perl libpq-dev libipc-run-perl faketime procps iproute2 util-linux"
# a build of one's own (PG_CONFIG outside /usr) needs no packaged server
case ${PG_CONFIG:-/usr} in
	/usr*) wanted="postgresql-$major postgresql-server-dev-$major $wanted" ;;
esac

missing=
for p in $wanted "$@"; do
	dpkg-query -W -f '${db:Status-Status}\n' "$p" 2>/dev/null | grep -qx installed || missing="$missing $p"
done
[ -n "$missing" ] || exit 0

if ! command -v dpkg-query >/dev/null || ! command -v apt-get >/dev/null; then
	echo "This is not Debian: expecting that what these packages hold is here:$missing" >&2
	exit 0
fi
if [ "$(id -u)" != 0 ]; then
	echo "Missing packages:$missing" >&2
	echo "Install them (as root: apt-get install$missing), or run this as root." >&2
	exit 1
fi

echo "Installing:$missing"
policy=/usr/sbin/policy-rc.d
nocluster=/etc/postgresql-common/createcluster.d/mmrepl-setup.conf
undo() {
	rm -f "$nocluster"
	[ -z "${policy_is_ours:-}" ] || rm -f "$policy"
}
trap undo EXIT
if [ ! -e "$policy" ]; then
	policy_is_ours=1
	printf '#!/bin/sh\nexit 101\n' > "$policy"
	chmod +x "$policy"
fi
mkdir -p "$(dirname "$nocluster")"
echo "create_main_cluster = false" > "$nocluster"

export DEBIAN_FRONTEND=noninteractive
apt-get update -q >/dev/null || echo "apt-get update failed; going on with the lists that are here" >&2
log=$(mktemp)
# shellcheck disable=SC2086
if ! apt-get install -q -y --no-install-recommends --no-upgrade $missing >"$log" 2>&1; then
	tail -n 30 "$log" >&2
	rm -f "$log"
	echo "apt-get could not install:$missing" >&2
	exit 1
fi
rm -f "$log"
# a FreeRADIUS that came with us is for the demo only: not for the next boot
case " $missing " in
	*" freeradius "*) deb-systemd-helper disable freeradius.service >/dev/null 2>&1 || true ;;
esac
