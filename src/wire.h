/*-------------------------------------------------------------------------
 * wire.h
 *	  Bytes of the wire and of the log: variable-length integers, byte
 *	  strings, positions, contexts.  Reading is bounds-checked: whatever comes
 *	  may be hostile (ERRCODE_MMR_CORRUPT).
 *
 * Floor 1.
 *-------------------------------------------------------------------------
 */
#ifndef MMR_WIRE_H
#define MMR_WIRE_H

#include "lib/stringinfo.h"
#include "position.h"

#define MMR_VARINT_MAX	10

/* Frame: magic, protocol version, then records to its end. */
#define MMR_FRAME_MAGIC		0x4d
#define MMR_FRAME_HEADER	2

/* Records of a frame. */
#define MMR_REC_BATCH		'B'	/* sync, source, kind, positions, context: first record of the first frame */
#define MMR_REC_RELATION	'R'	/* a table and its columns, before its first item in a batch */
#define MMR_REC_TRUNCATE	'T'
#define MMR_REC_ITEM		'I'
#define MMR_REC_COPY_TABLE	'C'	/* initial copy: rows of this table follow */
#define MMR_REC_SEQUENCE	'S'
#define MMR_REC_END			'E'	/* last record of the last frame */

/* Kind of a batch. */
#define MMR_BATCH_CHANGES	0
#define MMR_BATCH_COPY		1
#define MMR_BATCH_BEQUEST	2	/* of somebody who has departed, by a target (bequest.h) */

/* Flags of an item. */
#define MMR_ITEM_OP_MASK	0x07
#define MMR_ITEM_ROW		0x08	/* a row follows; none: the key is gone */
#define MMR_ITEM_RANK		0x10	/* version of rank 1 */
#define MMR_ITEM_RESOLUTION 0x20	/* a resolver's result: level and node follow the dot */
#define MMR_ITEM_FOREIGN	0x40	/* version node and dot follow; else both are the sender's */

typedef struct MmrReader
{
	const char *ptr;
	const char *end;
} MmrReader;

/* Writes at p, returns the byte after it; up to MMR_VARINT_MAX bytes. */
static inline char *
mmr_put_varint(char *p, uint64 v)
{
	while (v >= 0x80)
	{
		*p++ = (char) (v | 0x80);
		v >>= 7;
	}
	*p++ = (char) v;
	return p;
}

static inline uint64
mmr_zigzag(int64 v)
{
	return ((uint64) v << 1) ^ (uint64) (v >> 63);
}

static inline int64
mmr_unzigzag(uint64 v)
{
	return (int64) (v >> 1) ^ -(int64) (v & 1);
}

extern uint64 mmr_get_varint_slow(MmrReader *r);

static inline uint64
mmr_get_varint(MmrReader *r)
{
	if (likely(r->ptr < r->end && (*r->ptr & 0x80) == 0))
		return (uint64) *r->ptr++;
	return mmr_get_varint_slow(r);
}

static inline int64
mmr_get_zigzag(MmrReader *r)
{
	return mmr_unzigzag(mmr_get_varint(r));
}

static inline bool
mmr_reader_done(MmrReader *r)
{
	return r->ptr >= r->end;
}

/* Raises ERRCODE_MMR_CORRUPT. */
extern void mmr_wire_corrupt(const char *what) pg_attribute_noreturn();

/* So many bytes, in place. */
extern const char *mmr_get_bytes(MmrReader *r, uint64 len);
extern uint8 mmr_get_byte(MmrReader *r);
/* A varint that must be no more than max. */
extern uint64 mmr_get_bounded(MmrReader *r, uint64 max, const char *what);
/* Length and bytes; palloc'd with a terminator. */
extern char *mmr_get_string(MmrReader *r);
/* NULL for none; palloc'd. */
extern MmrPosition *mmr_get_position(MmrReader *r);
extern MmrContext *mmr_get_context(MmrReader *r);

extern void mmr_append_varint(StringInfo buf, uint64 v);
extern void mmr_append_zigzag(StringInfo buf, int64 v);
extern void mmr_append_string(StringInfo buf, const char *s);
extern void mmr_append_position(StringInfo buf, const MmrPosition *pos);
extern void mmr_append_context(StringInfo buf, const MmrContext *ctx);

/* Empties the buffer; its memory goes back if it is more than that many bytes. */
extern void mmr_wire_empty(StringInfo buf, int limit);

#endif							/* MMR_WIRE_H */
