/*-------------------------------------------------------------------------
 * row.h
 *	  Rows to bytes and back, columns matched by name.
 *
 * Floor 3.  A row on the wire: per column of its format 0 for NULL, else
 * length + 1 and the value in binary send format (or as text).
 *-------------------------------------------------------------------------
 */
#ifndef MMR_ROW_H
#define MMR_ROW_H

#include "executor/tuptable.h"
#include "nodes/pg_list.h"
#include "utils/rel.h"

#include "key.h"
#include "wire.h"

typedef struct MmrRowFormat MmrRowFormat;

/*
 * Sender: the format of a local table: all columns but dropped and generated
 * ones; binary where the type is the server's own (so that every node knows
 * it under the same number), unless all_text.  Lives in the given context.
 */
extern MmrRowFormat *mmr_row_format_local(Relation rel, bool all_text, MemoryContext cxt);

/* The same of some of its columns, in that order: List of names. ERROR if one is not there, or generated. */
extern MmrRowFormat *mmr_row_format_columns(Relation rel, List *names, MemoryContext cxt);

/* Appends MMR_REC_RELATION without its first byte: number, names, key columns, columns. */
extern void mmr_row_describe(MmrRowFormat *format, uint32 number, Relation rel, MmrKey *key,
							 StringInfo out);

/* Appends the row in the slot: length, columns. */
extern void mmr_row_encode(MmrRowFormat *format, TupleTableSlot *slot, StringInfo out);

/* What a description says, before it is bound to a local table. */
typedef struct MmrRowDescription
{
	uint32		number;
	char	   *nspname;
	char	   *relname;
	int			nkeys;
	char	  **keys;			/* names of the key's columns, in order */
	int			ncolumns;
	char	  **names;
	Oid		   *types;			/* sender's type; only the server's own are comparable */
	bool	   *binary;
} MmrRowDescription;

extern MmrRowDescription *mmr_row_read_description(MmrReader *r);

/* Receiver: ERROR (ERRCODE_MMR_SCHEMA) if the sender's key has other columns than the one here. */
extern void mmr_row_same_key(MmrRowDescription *description, MmrKey *key);

/*
 * Receiver: binds a description to the local table.  ERROR
 * (ERRCODE_MMR_SCHEMA) naming the column if it does not fit: missing here,
 * of another type while sent in binary, another key.
 */
extern MmrRowFormat *mmr_row_format_remote(MmrRowDescription *description, Relation rel,
										   MmrKey *key, MemoryContext cxt);

/*
 * Receiver: decodes a row into the slot (virtual), values in the current
 * context; columns that were not sent are left as they are in the slot's
 * arrays.  Checks bounds.
 */
extern void mmr_row_decode(MmrRowFormat *format, const char *data, int len, TupleTableSlot *slot);

/* True for attribute number (from 1) if the sender sends it. */
extern bool mmr_row_sends(MmrRowFormat *format, AttrNumber attnum);

#endif							/* MMR_ROW_H */
