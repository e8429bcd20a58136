# lib.sh: what run.sh says in words, done. Sourced by run.sh, which sets here and work.
# shellcheck shell=bash disable=SC2154,SC2034

declare -A db_port link_port auth_port acct_port
failed=0

heading() {
	echo
	if [ -t 1 ]; then printf '\033[1m%s\033[0m' "$1"; else printf '%s' "$1"; fi
	printf '  (%d s)\n\n' $((SECONDS - began))
}

die() {
	echo "demo: $*" >&2
	exit 1
}

# check TEXT COMMAND...: says whether it holds, and remembers if not
check() {
	local text=$1
	shift
	if "$@"; then
		echo "   ok      $text"
	else
		echo "   NOT OK  $text"
		failed=1
	fi
}

# -------------------------------------------------------------------------------------------------- coming and going

# what was started, by process id, one a line
started() { echo "$1" >>"$work/pids"; }

# signal NAME: to those of them that still are what they were
signal() {
	local pid
	[ ! -e "$work/pids" ] || while read -r pid; do
		! grep -qF "$work" "/proc/$pid/cmdline" 2>/dev/null || kill -s "$1" "$pid" || true
	done <"$work/pids"
}

stop_all() {
	local f
	signal TERM
	for f in "$work"/*/data/postmaster.pid; do
		[ ! -e "$f" ] || pg_ctl -D "${f%/*}" -m immediate stop >/dev/null 2>&1 || true
	done
	sleep 0.3
	signal KILL
}

leave() {
	local status=$?
	trap - EXIT
	trap '' INT TERM HUP
	if [ $status != 0 ] && [ -z "$interrupted" ]; then
		echo >&2
		echo "The demonstration FAILED (exit status $status), last words of the logs:" >&2
		for f in "$work"/logs/*; do
			case $f in
				*-postgres.log | *-radius.log | */network.log)
					[ ! -s "$f" ] || { echo "--- ${f##*/}" >&2; tail -n 8 "$f" | cut -c1-300 >&2; } ;;
			esac
		done
	fi
	if [ "${KEEP:-}" = 1 ] && [ -z "$interrupted" ] && [ -e "$work/servers" ]; then
		keep
		exit $status
	fi
	stop_all
	if [ $status != 0 ]; then
		mkdir -p "$MMR_WORK/logs"
		cp "$work"/logs/* "$work/ledger" "$MMR_WORK/logs/" 2>/dev/null || true
	fi
	rm -rf "$work"
	exit $status
}

# KEEP=1: everything goes on running
keep() {
	{
		echo "#!/bin/bash"
		echo "# stops the demonstration and removes it"
		echo "export PATH='$PATH'; work='$work'"
		declare -f signal stop_all
		echo "stop_all; rm -rf '$MMR_WORK'"
	} >"$work/stop"
	chmod +x "$work/stop"
	echo
	echo "KEEP=1: all of it goes on running."
	for n in aaa01 aaa02; do
		echo "   $n database: $(command -v psql) -h $work/$n -p ${db_port[$n]} -U postgres radius"
		echo "   $n login:    radclient -d $work/$n/raddb 127.0.0.1:${auth_port[$n]} auth testing123 <<< User-Name=user001,User-Password=secret001"
	done
	echo "   cut the connection:  python3 $here/proxy.py tell $work/network down    (up: heal it)"
	echo "   logs:                $work/logs"
	echo "   stop and remove:     $work/stop"
	if [ "$(id -un)" = postgres ]; then
		echo "   as root, put before each: runuser -u postgres --"
	fi
}

finish() {
	echo
	if [ $failed = 0 ]; then
		echo "All checks held, after $((SECONDS - began)) seconds."
		exit 0
	fi
	exit 1
}

# ----------------------------------------------------------------------------------------------------------- set-up

# directories, ports, FreeRADIUS's own files
prepare() {
	local tool ports package
	for tool in python3 freeradius radclient setsid stdbuf awk postgres initdb pg_ctl psql; do
		PATH=$PATH:/usr/sbin:/sbin command -v $tool >/dev/null || die "$tool is missing"
	done
	PATH=$PATH:/usr/sbin:/sbin
	interrupted=
	mkdir -m 700 "$work" || die "$work is there already"
	trap leave EXIT
	trap 'interrupted=1; exit 130' INT
	trap 'interrupted=1; exit 143' TERM HUP
	mkdir "$work/logs"
	mkfifo "$work/now"
	: >"$work/ledger"
	[ ${#work} -le 80 ] || die "the name of the directory is too long for a Unix socket: $work (set TMPDIR)"

	# a copy made by whoever could read it, the installed one, or the package's own
	schema=
	for raddb_from in "$MMR_WORK/given/3.0" /etc/freeradius/3.0; do
		[ ! -r "$raddb_from/mods-config/sql/main/postgresql/schema.sql" ] || { schema=found; break; }
	done
	if [ -z "$schema" ]; then
		package=freeradius-config=$(dpkg-query -W -f '${Version}' freeradius-config 2>/dev/null || true)
		mkdir "$work/package"
		(cd "$work/package" &&
			{ apt-get -q download "${package%=}" || apt-get -q download freeradius-config; } >"$work/logs/apt" 2>&1 &&
			dpkg -x freeradius-config_*.deb .) ||
			die "$(id -un) may not read /etc/freeradius/3.0, and the package freeradius-config cannot be downloaded:
$(tail -n 3 "$work/logs/apt")
Run make demo as root, or as a user who may read /etc/freeradius (group freerad)."
		raddb_from=$work/package/etc/freeradius/3.0
	fi
	schema=$raddb_from/mods-config/sql/main/postgresql
	password=$(head -c 18 /dev/urandom | base64 | tr '+/' 'ab')

	ports=$(python3 "$here/ports.py" 8) || die "no free ports"
	# shellcheck disable=SC2086
	set -- $ports
	db_port=([aaa01]=$1 [aaa02]=$2)
	link_port=([aaa01]=$3 [aaa02]=$4)
	auth_port=([aaa01]=$5 [aaa02]=$6)
	acct_port=([aaa01]=$7 [aaa02]=$8)
	for n in aaa01 aaa02; do
		echo "$n ${auth_port[$n]} ${acct_port[$n]}" >>"$work/servers"
		echo "$n $work/$n ${db_port[$n]}" >>"$work/databases"
	done
}

# start_database SERVER: makes it the first time
start_database() {
	local dir=$work/$1
	if [ ! -e "$dir" ]; then
		mkdir "$dir"
		initdb -D "$dir/data" -U postgres --auth-local=trust --auth-host=scram-sha-256 \
			--encoding=UTF8 --locale=C >"$work/logs/$1-initdb.log" 2>&1 || die "initdb: $(cat "$work/logs/$1-initdb.log")"
		cat >>"$dir/data/postgresql.conf" <<-END
			port = ${db_port[$1]}
			listen_addresses = '127.0.0.1'
			unix_socket_directories = '$dir'
			shared_preload_libraries = 'mmrepl'
			max_worker_processes = 16
			log_line_prefix = '%m %u '
			log_timezone = 'UTC'
			timezone = 'UTC'
		END
	fi
	# a killed one whose process id is still taken would look like one that runs
	if [ -e "$dir/data/postmaster.pid" ]; then
		for _ in $(seq 100); do
			kill -0 "$(head -n 1 "$dir/data/postmaster.pid")" 2>/dev/null || break
			sleep 0.1
		done
	fi
	pg_ctl -D "$dir/data" -l "$work/logs/$1-postgres.log" -w -t 60 start >>"$work/logs/$1-pg_ctl.log" 2>&1 ||
		die "PostgreSQL of $1 does not start: $(tail -n 5 "$work/logs/$1-postgres.log")"
}

# gone PID: no more there, or only waiting for its parent to take note
gone() { case $(ps -o stat= -p "$1") in "" | Z*) return 0 ;; *) return 1 ;; esac; }

# kill_database SERVER: SIGKILL for the postmaster and all of its processes
kill_database() {
	local pid
	pid=$(head -n 1 "$work/$1/data/postmaster.pid")
	# stopped first, so that it neither tells the others nor starts new ones
	kill -STOP "$pid"
	# shellcheck disable=SC2046
	kill -9 $(ps -o pid= --ppid "$pid") "$pid"
	until gone "$pid"; do sleep 0.02; done
}

# the connection between the databases: mmrepl knows each under a port of the proxy
start_network() {
	setsid python3 "$here/proxy.py" run "$work/network" "${link_port[aaa01]}:${db_port[aaa01]}" \
		"${link_port[aaa02]}:${db_port[aaa02]}" </dev/null >"$work/logs/network.log" 2>&1 &
	started $!
	for _ in $(seq 100); do
		[ ! -S "$work/network" ] || return 0
		sleep 0.05
	done
	die "the proxy does not start: $(cat "$work/logs/network.log")"
}

network() { python3 "$here/proxy.py" tell "$work/network" "$1"; }

start_radius() {
	local raddb=$work/$1/raddb
	cp -r "$raddb_from" "$raddb"
	chmod -R u+w "$raddb"
	python3 "$here/radius_conf.py" "$raddb" "$work/$1" "${db_port[$1]}" "${auth_port[$1]}" "${acct_port[$1]}"
	setsid freeradius -f -d "$raddb" -l "$work/logs/$1-radius.log" </dev/null >/dev/null 2>&1 &
	started $!
	for _ in $(seq 200); do
		! grep -q "Ready to process requests" "$work/logs/$1-radius.log" 2>/dev/null || return 0
		kill -0 $! 2>/dev/null || break
		sleep 0.05
	done
	die "FreeRADIUS of $1 does not start: $(tail -n 5 "$work/logs/$1-radius.log")"
}

# ---------------------------------------------------------------------------------------------------------- databases

# sql SERVER ARGUMENTS OF PSQL...
sql() {
	local n=$1
	shift
	psql -XqAt -v ON_ERROR_STOP=1 -h "$work/$n" -p "${db_port[$n]}" -U postgres -d radius "$@"
}

count() { sql "$1" --command="SELECT count(*) FROM $2"; }

conninfo() { echo "host=127.0.0.1 port=${link_port[$1]} dbname=radius user=mmrepl password=$password"; }

# configure STATEMENT: on aaa01, shown as it is but for the password
configure() {
	echo "   ${1//$password/...};"
	sql aaa01 --command="SET client_min_messages = warning" --command="$1" >/dev/null
}

# ------------------------------------------------------------------------------------------------------- replication

# wait_for SERVER: until what was committed there before is applied on the other
wait_for() {
	[ "$(sql "$1" --command="SELECT mmrepl.wait_for_sync('mysync', 60)")" = t ] ||
		{ status; die "what was written on $1 has not reached the other server within a minute"; }
}

settle() {
	wait_for aaa01
	wait_for aaa02
	status
}

# what became of the initial copy
copied() {
	sql aaa01 --command="
		SELECT format('Copied to %s: %s of %s tables, %s rows, %s.', peer, tables_done, tables_total, rows_done, done)
		FROM mmrepl.copy_progress"
}

# mmrepl.status of both, one under the other
status() {
	local n=aaa01 query
	echo
	echo "   mmrepl.status:"
	query="SELECT :'on' AS on, sync, peer, state, last_good::timestamp(0)::time AS last_good, time, last_iud,
			last_bad::timestamp(0)::time AS last_bad, lag_seconds AS lag, pending, conflicts,
			coalesce(' waits for ' || waits_for, '') || coalesce(left(split_part(last_error, E'\n', 1), 90), '') AS last_error
		FROM mmrepl.status"
	{
		for n in aaa01 aaa02; do
			if pg_isready -q -U postgres -d radius -h "$work/$n" -p "${db_port[$n]}"; then
				psql -XqA -F '|' -P footer=off -v ON_ERROR_STOP=1 -v on="$n" -h "$work/$n" -p "${db_port[$n]}" \
					-U postgres -d radius --file=- <<<"$query"
			else
				echo "$n|||down"
			fi
		done
	} | awk -F '|' '
		/^on\|/ && seen++ { next }
		{ line[++n] = $0; for (i = 1; i <= NF; i++) if (length($i) > width[i]) width[i] = length($i) }
		END {
			for (l = 1; l <= n; l++) {
				text = ""
				fields = split(line[l], value, "|")
				for (i = 1; i <= fields; i++) text = text sprintf("  %-" width[i] "s", value[i])
				sub(/ +$/, "", text)
				print " " text
			}
		}'
}

# what mmrepl.conflict_history says of the user whose reply was edited
conflict_lines() {
	local n
	for n in aaa01 aaa02; do
		sql $n --command="
			SELECT format(E'   %s\n      %s in %s %s: %s\n      here there was   %L, written on %s at %s\n      and there came   %L, written on %s at %s',
				'mmrepl.conflict_history on $n:', conflict_type, tablename, key, resolution,
				local_row ->> 'value', local_db, local_time::time, remote_row ->> 'value', remote_db, remote_time::time)
			FROM mmrepl.conflict_history WHERE tablename = 'radreply'"
	done
}

# late_session SERVER: one of those whose Stop was elsewhere
late_session() {
	sql "$1" --command="
		SELECT format('   on %s: O-001 from %s to %s, %s s, %s octets out', '$1', acctstarttime::time,
			coalesce(acctstoptime::time::text, 'now'), acctsessiontime, acctoutputoctets)
		FROM radacct WHERE acctsessionid = 'O-001'"
}

# how many conflicts of which kind, both servers
conflict_counts() {
	local n
	echo
	echo "Conflicts settled, radacct's by merging both rows, the others' by the newest; all are in mmrepl.conflict_history:"
	for n in aaa01 aaa02; do
		sql $n -F ' ' --command="
			SELECT format('   on %s: %s %s of %s, %s', '$n', conflicts, conflict_type, tablename, resolution)
			FROM mmrepl.conflict_summary"
	done
}

# ------------------------------------------------------------------------------------------------------------ clients

nas() { python3 "$here/nas.py" "$work" "$@"; }

# answers_again SERVER: until its FreeRADIUS answers a login
answers_again() {
	for _ in $(seq 50); do
		! NAS_PATIENCE=1 nas show user001 "$1" >/dev/null || return 0
		sleep 0.2
	done
	die "FreeRADIUS of $1 does not find back to its database"
}

# join PID: of something in the background
join() { wait "$1" || die "a record or a login was answered by nobody, or wrongly"; }
