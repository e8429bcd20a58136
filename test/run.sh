#!/bin/bash
# run.sh: all tests, under scripts/with_server.sh; see there for the environment.
# A suite that fails does not stop the others. The closing line (MMR_WORK/result) counts what every suite counted.
#	TESTS		suites to run, of: regress isolation tap
#	PROVE_TESTS	TAP files, instead of all
#	PROVE_JOBS	TAP files at once
set -u

# nothing here waits that long unless something is wrong
export PG_TEST_TIMEOUT_DEFAULT=${PG_TEST_TIMEOUT_DEFAULT:-60}

tests=${TESTS:-regress isolation tap}
out=$MMR_WORK/logs
passed=0 failed=0 skipped=0

# Tests of a pg_regress run: its lines are "test x ... ok" up to PostgreSQL 15 and TAP since; a run
# that fails without a failed test (no server, a crash) counts as one.
count_regress() {
	local log=$1 status=$2 p f
	p=$(grep -cE '^((test| {4}) .*\.\.\. +ok|ok [0-9]+)' "$log")
	f=$(grep -cE '^((test| {4}) .*\.\.\. +(FAILED|failed)|not ok [0-9]+)' "$log")
	if [ "$status" != 0 ] && [ "$f" = 0 ]; then f=1; fi
	passed=$((passed + p)) failed=$((failed + f))
}

regress() {
	echo "== $1"
	make -s installcheck PG_CONFIG="$PG_CONFIG" TAP_TESTS= "$2" >"$out/$1.log" 2>&1
	local status=$?
	cat "$out/$1.log"
	count_regress "$out/$1.log" $status
	if [ $status != 0 ]; then
		cat "$3/regression.diffs" 2>/dev/null
		cp -r "$3" "$out/" 2>/dev/null
	fi
}

for suite in $tests; do
	case $suite in
		regress) [ -z "$(ls sql/*.sql 2>/dev/null)" ] || regress regress ISOLATION= tmp_regress ;;
		isolation) [ -z "$(ls test/isolation/specs/*.spec 2>/dev/null)" ] || regress isolation REGRESS= tmp_isolation ;;
		tap)
			echo "== tap"
			counts=$out/tap.counts
			# shellcheck disable=SC2086
			PG_REGRESS=$(dirname "$("$PG_CONFIG" --pgxs)")/../test/regress/pg_regress \
				TESTDIR=$MMR_WORK TESTDATADIR=$MMR_WORK/tmp_check TESTLOGDIR=$out/tap \
				perl test/lib/tap.pl "$counts" ${PROVE_TESTS:-test/*.pl}
			status=$?
			if [ -s "$counts" ]; then
				read -r p f s < "$counts"
				passed=$((passed + p)) failed=$((failed + f)) skipped=$((skipped + s))
			elif [ $status != 0 ]; then
				failed=$((failed + 1))
			fi
			mkdir -p "$out/tap" && cp "$MMR_WORK"/tmp_check/log/* "$out/tap/" 2>/dev/null
			;;
		*) echo "There is no suite $suite" >&2; failed=$((failed + 1)) ;;
	esac
done

line="$passed passed, $failed failed"
[ $skipped = 0 ] || line="$line, $skipped skipped"
echo "$line" > "$MMR_WORK/result"
[ $failed = 0 ] && [ $passed -gt 0 ]
