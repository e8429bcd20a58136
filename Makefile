# mmrepl: see README.md; `make demo` and `make test` do all the set-up.
EXTENSION   = mmrepl
EXTVERSION  = $(shell sed -n "s/^default_version *= *'\(.*\)'/\1/p" $(EXTENSION).control)
MODULE_big  = $(EXTENSION)
PGFILEDESC  = "mmrepl - asynchronous multi-master replication"

OBJS        = $(patsubst %.c,%.o,$(sort $(wildcard src/*.c)))
SCHEMA      = $(sort $(wildcard src/schema/[0-9]*.sql))
DATA_built  = $(EXTENSION)--$(EXTVERSION).sql

PG_CPPFLAGS = -I$(srcdir)/src -I$(libpq_srcdir)
SHLIB_LINK  = $(libpq) -Wl,-Bsymbolic
# capture runs between two statements of a user's: what it calls of the server without a jump more
PG_CFLAGS   = -fno-plt

# install goes first: it says most clearly what is wrong when nothing works
SQL_TESTS   = $(basename $(notdir $(sort $(wildcard sql/*.sql))))
TEST_CONF   = --temp-config=$(srcdir)/test/regress.conf
REGRESS     = $(filter install,$(SQL_TESTS)) $(filter-out install,$(SQL_TESTS))
REGRESS_OPTS = --temp-instance=tmp_regress/instance --outputdir=tmp_regress $(TEST_CONF)
ISOLATION   = $(basename $(notdir $(sort $(wildcard test/isolation/specs/*.spec))))
ISOLATION_OPTS = --inputdir=$(srcdir)/test/isolation --outputdir=tmp_isolation \
              --temp-instance=tmp_isolation/instance $(TEST_CONF)
EXTRA_CLEAN = tmp_regress tmp_isolation build
HDRS        = $(sort $(wildcard src/*.h))

PG_CONFIG ?= pg_config
PGXS := $(shell $(PG_CONFIG) --pgxs 2>/dev/null)
# nothing here is for inlining into queries: no bitcode, half the build (Makefile.global would say yes)
override with_llvm = no
ifneq ($(wildcard $(PGXS)),)
include $(PGXS)
else
all install:
	@echo "PG_CONFIG ($(PG_CONFIG)) leads to no PGXS: install the server's headers, or run make test." >&2; exit 1
endif

$(EXTENSION)--$(EXTVERSION).sql: $(SCHEMA)
	cat $^ > $@

# An object is stale when any header changed: they are few, and so is the time it takes.
$(OBJS): $(HDRS)

# Private servers, no installation: scripts/with_server.sh says what happens.
# TESTS="regress isolation tap", PROVE_TESTS=test/..., ASSERT=prefix of a PostgreSQL with assertions
.PHONY: test demo chaos chaos-proof bench headerscheck breakscheck
test:
	@scripts/with_server.sh -p python3 -c /etc/freeradius/3.0 -n test/run.sh

demo:
	@scripts/with_server.sh -p "$(DEMO_PACKAGES)" -c /etc/freeradius/3.0 demo/run.sh
DEMO_PACKAGES = python3 freeradius freeradius-postgresql freeradius-config freeradius-utils

# Random writers and faults on NODES servers for MINUTES, then all must be equal; see test/chaos/chaos.py. CHAOS="--clock ..."
SEED ?= 1
NODES ?= 2
MINUTES ?= 1
SEEDS ?= 8
chaos:
	@scripts/with_server.sh -p python3 -n python3 test/chaos/chaos.py --seed $(SEED) --nodes $(NODES) --minutes $(MINUTES) $(CHAOS)

# mmrepl beside no replication, native logical replication, pglogical, Bucardo: bench/README.md. PARTS="a c" SCALE=0.1 REPEAT=3
# TOOLS="none native mmrepl"; results go to OUT, those of other sizes not beside the real ones
BENCH_OUT = $(if $(filter-out 1,$(SCALE)),build/bench,bench)
bench:
	@BENCH_COMMIT="$$(git describe --always --dirty --exclude='*' 2>/dev/null)" PYTHONDONTWRITEBYTECODE=1 \
		scripts/with_server.sh -p python3 -o "$(abspath $(or $(OUT),$(BENCH_OUT)))" python3 bench/bench.py

# That the chaos test would notice: mmrepl without one rule after the other (RULES="RANK ...", or all), SEEDS tried for each.
chaos-proof:
	@SEED=$(SEED) SEEDS=$(SEEDS) scripts/with_server.sh -p python3 -n python3 -B test/chaos/proof.py $(RULES)

# every header compiles alone
headerscheck:
	@status=0; for h in $(HDRS); do \
		printf '#include "postgres.h"\n#include "%s"\n' $$(basename $$h) | \
		$(CC) $(CFLAGS) $(CPPFLAGS) -Isrc -fsyntax-only -x c - || status=1; done; exit $$status

# every rule can be left out
breakscheck:
	@status=0; grep -oE 'MMR_BREAK_[A-Z_]+' src/*.c | sort -u | { while IFS=: read -r file rule; do \
		$(CC) $(CFLAGS) $(CPPFLAGS) -Isrc -D$$rule -fsyntax-only $$file || status=1; done; exit $$status; }
