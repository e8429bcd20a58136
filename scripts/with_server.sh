#!/bin/bash
# with_server.sh [-p "PACKAGE..."] [-c DIR] [-o DIR] [-n] COMMAND...: runs COMMAND with mmrepl built and installed in a private PostgreSQL.
#
# It copies the checkout and the PostgreSQL that PG_CONFIG names (ASSERT=DIR: a PostgreSQL built with assertions,
# by its prefix) into a new directory under TMPDIR, builds and installs only there, and runs COMMAND there, in the
# copy of the tree, never as root (root hands over to postgres or nobody), and with -n in a network namespace of its
# own where the machine allows that. COMMAND finds the programs in its PATH, and these in its environment:
#	PG_CONFIG	pg_config of the private PostgreSQL
#	MMR_WORK	the directory, for whatever COMMAND makes; MMR_WORK/logs is kept in build/logs if COMMAND fails,
#			MMR_WORK/result is printed last of all
# -c DIR puts a copy of DIR, if it may be read, into MMR_WORK/given, for a COMMAND that may not read it itself.
# -o DIR: its .json files are in MMR_WORK/out before, and it takes what is there afterwards, whatever COMMAND says.
# Whatever COMMAND says, servers below the directory are stopped and it is removed, unless KEEP=1.
set -euo pipefail

top=$(cd "$(dirname "$0")/.." && pwd)
packages=
given=
output=
netns=
while getopts p:c:o:n opt; do
	case $opt in
		p) packages=$OPTARG ;;
		c) given=$OPTARG ;;
		o) output=$OPTARG ;;
		n) netns=1 ;;
		*) exit 2 ;;
	esac
done
shift $((OPTIND - 1))

if [ -n "${ASSERT:-}" ]; then
	export PG_CONFIG=$ASSERT/bin/pg_config
fi
# shellcheck disable=SC2086
"$top/scripts/packages.sh" $packages
if [ -z "${PG_CONFIG:-}" ]; then
	PG_CONFIG=$(ls -d /usr/lib/postgresql/*/bin/pg_config 2>/dev/null | sort -V | tail -n 1)
	PG_CONFIG=${PG_CONFIG:-pg_config}
fi
command -v "$PG_CONFIG" >/dev/null || { echo "There is no $PG_CONFIG: is PostgreSQL installed?" >&2; exit 1; }
[ -e "$("$PG_CONFIG" --pgxs)" ] || { echo "$PG_CONFIG knows no PGXS: are the server's headers installed?" >&2; exit 1; }

# runs as the user who may start a server
if [ "$(id -u)" = 0 ]; then
	user=postgres
	id -u $user >/dev/null 2>&1 || user=nobody
	as_user() { runuser -u "$user" -- env HOME="$work" "$@"; }
else
	user=$(id -un)
	as_user() { "$@"; }
fi

work=$(mktemp -d "${TMPDIR:-/tmp}/mmrepl.XXXXXX")
leave() {
	status=$?
	trap - EXIT INT TERM HUP
	if [ "${KEEP:-}" = 1 ]; then
		echo "Kept: $work"
		exit $status
	fi
	# postmasters that COMMAND left behind: theirs are the directories below $work
	find "$work" -name postmaster.pid 2>/dev/null | while read -r f; do
		pid=$(head -n 1 "$f")
		case $(readlink "/proc/$pid/cwd" 2>/dev/null || true) in
			"$work"/*) kill -QUIT "$pid" 2>/dev/null || true ;;
		esac
	done
	if [ $status != 0 ] && [ -n "$(ls -A "$work/logs" 2>/dev/null)" ]; then
		rm -rf "$top/build/logs"
		mkdir -p "$top/build" && cp -r "$work/logs" "$top/build/logs" && echo "Logs: $top/build/logs" >&2
	fi
	if [ -n "$output" ] && [ -n "$(ls -A "$work/out" 2>/dev/null)" ]; then
		mkdir -p "$output" && cp "$work"/out/* "$output"/ || status=1
	fi
	result=$(cat "$work/result" 2>/dev/null || true)
	# a server that is just going down may still write
	for _ in 1 2 3 4 5; do rm -rf "$work" 2>/dev/null && break; done
	[ -z "$result" ] || echo "$result"
	exit $status
}
trap leave EXIT
trap 'exit 130' INT TERM HUP

# A PostgreSQL finds its own files relative to where it runs: a copy that keeps the layout is complete.
pg=$work/pg
bindir=$("$PG_CONFIG" --bindir)
for dir in "$bindir" "$("$PG_CONFIG" --pkglibdir)" "$("$PG_CONFIG" --sharedir)"; do
	mkdir -p "$pg$(dirname "$dir")"
	[ -e "$pg$dir" ] || cp -aL "$dir" "$pg$dir"
done
pgxs=$("$PG_CONFIG" --pgxs)
[ -e "$pg$pgxs" ] || { mkdir -p "$pg${pgxs%/src/*}"; cp -aL "${pgxs%/src/*}/." "$pg${pgxs%/src/*}"; }
for dir in "$("$PG_CONFIG" --includedir)" "$("$PG_CONFIG" --includedir-server)"; do
	mkdir -p "$pg$(dirname "$dir")"
	[ -e "$pg$dir" ] || ln -s "$dir" "$pg$dir"
done

mkdir -p "$work/tree" "$work/logs"
(
	cd "$top"
	if [ -d .git ] || [ -f .git ]; then
		git -c safe.directory='*' ls-files -z --cached --others --exclude-standard
	else
		find . -type f ! -name '*.o' ! -name '*.so' ! -path './build/*' -print0
	fi | while IFS= read -r -d '' f; do [ ! -e "$f" ] || printf '%s\0' "$f"; done |
		tar -cf - --null -T -
) | tar -xf - -C "$work/tree"
if [ -n "$given" ] && [ -r "$given" ] && [ -x "$given" ]; then
	mkdir -m 700 "$work/given" && cp -r "$given" "$work/given/"
fi
if [ -n "$output" ]; then
	mkdir "$work/out" && cp "$output"/*.json "$work/out/" 2>/dev/null || true
fi
[ "$(id -u)" != 0 ] || chown -R "$user" "$work"
chmod 755 "$work"

export PG_CONFIG=$pg$bindir/pg_config MMR_WORK=$work PATH=$pg$bindir:$PATH
unset PGHOST PGPORT PGUSER PGDATABASE PGDATA PGSERVICE PGPASSWORD PGOPTIONS MAKEFLAGS MFLAGS MAKELEVEL
cd "$work/tree"
if ! as_user make -s -j"$(nproc)" all PG_CONFIG="$PG_CONFIG" ||
	! as_user make -s install PG_CONFIG="$PG_CONFIG" >"$work/logs/install" 2>&1; then
	cat "$work/logs/install" 2>/dev/null >&2 || true
	echo "mmrepl could not be built" >&2
	exit 1
fi

if [ -n "$netns" ] && [ "$(id -u)" = 0 ] && unshare --net -- ip link set lo up 2>/dev/null; then
	# shellcheck disable=SC2016
	unshare --net -- bash -c 'ip link set lo up; user=$1; shift; exec runuser -u "$user" -- env HOME="$MMR_WORK" "$@"' _ "$user" "$@"
else
	as_user "$@"
fi
