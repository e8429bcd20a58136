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

PG_CONFIG ?= pg_config
PGXS := $(shell $(PG_CONFIG) --pgxs)
with_llvm = no
include $(PGXS)

$(EXTENSION)--$(EXTVERSION).sql: $(SCHEMA)
	cat $^ > $@
