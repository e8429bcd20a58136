/*-------------------------------------------------------------------------
 * breaks.h
 *	  Rules that a build for a test leaves out.  Floor 0.
 *
 * `make chaos-proof` builds mmrepl with one of these defined and shows that
 * the chaos test notices.  Each is looked at in one place.  A normal build
 * defines none; a library that was built with one says so and does not load,
 * unless the test's environment asks for it.
 *-------------------------------------------------------------------------
 */
#ifndef MMR_BREAKS_H
#define MMR_BREAKS_H

#if defined(MMR_BREAK_PURGE_ON_ACK) ||	/* P1: what a peer has acknowledged is stable */ \
	defined(MMR_BREAK_LABEL_FIRST) ||	/* B4: a key goes with the version of the entry that called for it */ \
	defined(MMR_BREAK_RECORD) ||		/* A4: what is applied is not recorded */ \
	defined(MMR_BREAK_NEWEST) ||		/* A3: whatever comes is written */ \
	defined(MMR_BREAK_DEFER) ||			/* A5: a row that collides is settled at once */ \
	defined(MMR_BREAK_RANK) ||			/* A5: the loser's delete is no newer than the loser */ \
	defined(MMR_BREAK_TRUNCATE_ORDER) ||	/* A2: TRUNCATEs go behind the rows */ \
	defined(MMR_BREAK_TRUNCATE_SPARE) ||	/* A2: a TRUNCATE spares nothing */ \
	defined(MMR_BREAK_SPARED) ||	/* M4: what it spares does not go on with it */ \
	defined(MMR_BREAK_CLOCK_TICK) ||	/* K1: the machine's clock is good enough */ \
	defined(MMR_BREAK_CLOCK_FLOOR) ||	/* K2: nor is it raised after a restart */ \
	defined(MMR_BREAK_FLUSH) ||			/* B3: WAL need not be on disk before it is sent */ \
	defined(MMR_BREAK_POSITION)			/* B1: a position covers what was under way */
#define MMR_BROKEN	1
#endif

#endif
