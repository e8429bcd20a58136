#!/bin/bash
# run.sh: two AAA servers, each a FreeRADIUS with its own database, both databases masters of each other.
#
# `make demo` builds mmrepl into a private PostgreSQL and then runs this (scripts/with_server.sh): as an ordinary
# user, with that PostgreSQL first in PATH and MMR_WORK naming a directory of its own. It tells what it does, shows
# mmrepl.status at each step and proves the end. Exit status 0 only if every check held.
# CUT=silent cuts the connection without telling anybody, as a pulled cable does.
# KEEP=1 leaves all of it running and says how to look at it and how to stop it.
# shellcheck disable=SC2154,SC2034
set -Eeuo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
: "${MMR_WORK:?run this by: make demo}"
[ "$(id -u)" != 0 ] || { echo "PostgreSQL does not run as root: use make demo" >&2; exit 1; }
work=$MMR_WORK/demo
export MMR_WORK TZ=UTC LC_ALL=C
unset PGHOST PGPORT PGUSER PGDATABASE PGOPTIONS PGPASSWORD
began=$SECONDS
# shellcheck source=demo/lib.sh
. "$here/lib.sh"

# ---------------------------------------------------------------------------------------------------------------
heading "Two servers, aaa01 and aaa02"

prepare
for n in aaa01 aaa02; do
	start_database $n
	sql $n --dbname=postgres --command="CREATE DATABASE radius"
	sql $n --file="$schema/schema.sql" --file="$schema/setup.sql"
	sql $n --command="CREATE ROLE mmrepl LOGIN SUPERUSER PASSWORD '$password'"
done
start_network
sql aaa01 --file="$here/users.sql"
cat <<END
Each runs its own PostgreSQL $(sql aaa01 -c 'SHOW server_version' | cut -d' ' -f1) with the tables that Debian's FreeRADIUS ships. They
reach each other over one network connection, and nothing else is shared.
aaa01 has $(count aaa01 radcheck) users in $(count aaa01 radgroupreply) groups and $(count aaa01 nas) access servers; aaa02 has $(count aaa02 radcheck) users.
END

# ---------------------------------------------------------------------------------------------------------------
heading "mmrepl is told about both, on aaa01 alone"

configure "CREATE EXTENSION mmrepl"
configure "SELECT mmrepl.add_db('aaa01', '$(conninfo aaa01)')"
configure "SELECT mmrepl.add_db('aaa02', '$(conninfo aaa02)')"
# Both servers compute the same acctuniqueid for a session, and number the rows differently. What both write of one
# session is put together column by column.
configure "SELECT mmrepl.add_table('radacct', key => 'radacct_acctuniqueid_key', relgroup => 'aaaherd',
              conflict_strategy => 'function: mmrepl.radacct_merge')"
configure "SELECT mmrepl.add_all_tables(relgroup => 'aaaherd')"
configure "SELECT mmrepl.add_all_sequences(relgroup => 'aaaherd')"
configure "SELECT mmrepl.add_sync('mysync', relgroup => 'aaaherd',
              dbs => '{aaa01:source,aaa02:source}', onetimecopy => 2)"
wait_for aaa01
copied
echo "aaa02 has $(count aaa02 radcheck) users now."
status

# ---------------------------------------------------------------------------------------------------------------
heading "A normal day"

for n in aaa01 aaa02; do start_radius $n; done
cat <<END
One FreeRADIUS on each database. Clients log in at both, and start, update and
stop their sessions:
END
nas auth 1-60 aaa01 & one=$!
nas auth 61-120 aaa02
join $one
nas acct Start A:1-120 aaa01 & one=$!
nas acct Start B:1-120 aaa02
join $one
nas acct Interim A:1-120 aaa01 & one=$!
nas acct Interim B:1-120 aaa02
join $one
nas acct Stop A:1-120 aaa01 & one=$!
nas acct Stop B:1-120 aaa02
join $one
echo "Clients in a hurry: from one server to the other between two records."
nas acct Start C:1-60 aaa01
nas acct Interim C:1-60 aaa02
nas acct Stop C:1-60 aaa01
echo "And sessions that last:"
nas acct Start D:1-60 aaa01
nas acct Start E:1-60 aaa02
nas acct Start O:1-60 aaa01
settle

# ---------------------------------------------------------------------------------------------------------------
heading "Two administrators edit the same user"

# The first holds his transaction open until the second has committed: neither saw the other's edit.
cat <<END
On aaa01 one gives user007 a Session-Timeout of 1800, and before that has
reached aaa02, another one there says 7200.
END
sql aaa01 --file=- <<END
BEGIN;
UPDATE radreply SET value = '1800' WHERE username = 'user007' AND attribute = 'Session-Timeout';
\\! psql -XqAt -v ON_ERROR_STOP=1 -h '$work/aaa02' -p ${db_port[aaa02]} -U postgres radius -c "UPDATE radreply SET value = '7200' WHERE username = 'user007' AND attribute = 'Session-Timeout'"
COMMIT;
END
wait_for aaa01
wait_for aaa02
for n in aaa01 aaa02; do
	reply=$(nas show user007 $n)
	echo "   $n answers user007: $reply"
	check "$n: the newest edit stands (7200)" grep -q "Session-Timeout = 7200" <<<"$reply"
done
conflict_lines
status

# ---------------------------------------------------------------------------------------------------------------
heading "The connection between the databases is cut"

cat <<END
In the middle of traffic. The servers go on alone, and the clients switch back
and forth: what was begun on one is updated and stopped on the other, which
knows nothing of it.
END
NAS_TELL="30 $work/now" nas acct Interim D:1-60 aaa02 & one=$!
read -r <"$work/now"
network "${CUT:-down}"
cut=$SECONDS
join $one
nas acct Stop D:1-60 aaa02
nas acct Interim E:1-60 aaa01
nas acct Start F:1-60 aaa01
nas acct Interim F:1-60 aaa02
nas acct Stop F:1-60 aaa01
nas acct Start G:1-60 aaa02
nas acct Interim G:1-60 aaa01
nas acct Interim G:1-60 aaa02
nas acct Stop G:1-60 aaa01
nas acct Start H:1-40 aaa01
nas acct Stop H:1-40 aaa02
echo "Interim-Updates that reach aaa01 after the Stop has closed the session on aaa02:"
nas acct Interim O:1-60 aaa02
nas acct Stop O:1-60 aaa02
nas acct Late O:1-60 aaa01
late_session aaa01
late_session aaa02
echo "A NAS that missed the answer asks the other server again:"
nas acct Start I:1-30 aaa01
nas acct Again I:1-30 aaa02
nas auth 121-160 aaa01
nas auth 161-200 aaa02
nas acct Start J:1-40 aaa02
status

# ---------------------------------------------------------------------------------------------------------------
heading "aaa02's PostgreSQL is killed in the middle of it (SIGKILL)"

NAS_CHUNK=100 NAS_RATE=500 NAS_TELL="130 $work/now" nas acct Start K:1-300 aaa02 aaa01 >"$work/k" & one=$!
read -r <"$work/now"
killed=$(date +%s.%N)
kill_database aaa02
join $one
cat "$work/k"
echo "aaa02's FreeRADIUS keeps silent without its database, so the clients ask aaa01:"
nas acct Interim K:1-300 aaa02 aaa01
nas acct Interim J:1-40 aaa02 aaa01
nas acct Interim E:1-60 aaa02 aaa01
nas acct Start L:1-60 aaa02 aaa01
nas auth 201-240 aaa02 aaa01
status
echo
start_database aaa02
nas forget aaa02
answers_again aaa02
echo "$killed $(date +%s.%N)" >"$work/down"
echo "aaa02's PostgreSQL is started again, $(awk '{printf "%.1f", $2 - $1}' "$work/down") s later, and the clients return:"
nas acct Stop K:1-200 aaa02
nas acct Stop J:1-40 aaa02
nas acct Stop E:1-60 aaa02
nas acct Interim L:1-60 aaa02
nas auth 241-280 aaa02

# ---------------------------------------------------------------------------------------------------------------
heading "The connection heals"

echo "After $((SECONDS - cut)) s apart, with what each has written meanwhile:"
healed=$(date +%s.%N)
network up
wait_for aaa01
wait_for aaa02
echo "Both have everything $(echo "$healed $(date +%s.%N)" | awk '{printf "%.1f", $2 - $1}') s after that."
status
conflict_counts
echo
echo "The session that was open here and closed there:"
for n in aaa01 aaa02; do
	late_session $n
	check "$n: the Stop stands" [ "$(sql $n -c "SELECT count(*) FROM radacct WHERE acctsessionid ~ '^O-' AND acctstoptime IS NULL")" = 0 ]
done
echo
echo "The day goes on. Late Interim-Updates, after the Stop has arrived everywhere, change nothing:"
nas acct Late F:1-60 aaa02
nas acct Late G:1-60 aaa02
nas acct Late D:1-60 aaa01
nas acct Start M:1-60 aaa01 & one=$!
nas acct Start N:1-60 aaa02
join $one
nas acct Stop M:1-60 aaa02
nas acct Stop N:1-60 aaa01
settle

# ---------------------------------------------------------------------------------------------------------------
heading "The proof"

python3 "$here/proof.py" "$work" || failed=1
finish
