/*-------------------------------------------------------------------------
 * key.h
 *	  The key of a table: which columns, how they become bytes, when two of
 *	  them are the same.
 *
 * Floor 2.  A key's bytes are: per column an integer as zigzag varint, or
 * length and binary send format (text: raw, in the database's encoding).
 *-------------------------------------------------------------------------
 */
#ifndef MMR_KEY_H
#define MMR_KEY_H

#include "access/attnum.h"
#include "access/skey.h"
#include "executor/tuptable.h"
#include "lib/stringinfo.h"
#include "utils/rel.h"

typedef enum MmrCodec
{
	MMR_CODEC_INT2,
	MMR_CODEC_INT4,
	MMR_CODEC_INT8,
	MMR_CODEC_RAW,				/* varlena whose bytes are its binary format */
	MMR_CODEC_GENERIC			/* send and receive functions */
} MmrCodec;

typedef struct MmrKeyColumn
{
	AttrNumber	attnum;
	Oid			typid;			/* of a domain: the type that it is of */
	int32		typmod;
	bool		plain;			/* receive runs no code of a user's */
	Oid			collation;
	bool		byval;
	int16		typlen;
	MmrCodec	codec;
	FmgrInfo	send;			/* GENERIC */
	FmgrInfo	receive;
	Oid			ioparam;
	bool		image_equal;	/* equal values have equal bytes */
	FmgrInfo	hash;			/* unless image_equal; without an fn_oid: hashes to a constant */
	FmgrInfo	equal;
	NameData	name;
} MmrKeyColumn;

typedef struct MmrKey
{
	Oid			relid;
	Oid			indexid;
	Oid			owner;			/* of the table */
	bool		image_equal;	/* equal keys have equal bytes: all columns are so */
	int			ncolumns;
	ScanKeyData *scankeys;		/* index order; arguments to be filled in */
	MemoryContext cxt;
	MmrKeyColumn columns[FLEXIBLE_ARRAY_MEMBER];	/* in index order */
} MmrKey;

/*
 * The key made of that index' columns, from a per-session cache that relcache
 * invalidations empty; or NULL if the index cannot be a key (gone, not
 * unique, partial, expressions, deferrable, nullable).  The relation must be
 * open.  Lives to the end of the transaction, and longer while the generation
 * stays.
 */
extern MmrKey *mmr_key_get(Relation rel, Oid indexid);

/* Why an index cannot be a key, in words; NULL if it can. */
extern const char *mmr_key_problem(Relation rel, Relation index);

/* Grows with each invalidation that emptied something: to check what was remembered of a key. */
extern uint64 mmr_key_generation(void);

/* Appends the key of a tuple. */
extern void mmr_key_encode(MmrKey *key, TupleTableSlot *slot, StringInfo out);
extern void mmr_key_encode_values(MmrKey *key, const Datum *values, StringInfo out);

/*
 * A number that grows with the key in the order of its index, if its first
 * column is an integer; else 0.
 */
extern int64 mmr_key_place(MmrKey *key, const char *data, int len);

/* Values of the key's columns, in index order, allocated in the current context. Checks bounds. */
extern void mmr_key_decode(MmrKey *key, const char *data, int len, Datum *values);

/* Hash and equality by the columns' own operators (1.0 and 1.00 meet). */
extern uint64 mmr_key_hash(MmrKey *key, const char *data, int len);
/* The same as long as the same bytes have the same hash; never 0. */
extern uint64 mmr_key_fingerprint(MmrKey *key);
/* A hash that is the same on all servers, whatever the table's number there. */
extern uint64 mmr_key_hash_anywhere(MmrKey *key, const char *data, int len);
extern bool mmr_key_equal(MmrKey *key, const char *a, int alen, const char *b, int blen);

#endif							/* MMR_KEY_H */
