/*-------------------------------------------------------------------------
 * rowshow.h
 *	  A row as it came, for people: also one that fits no table here.
 *
 * Floor 4.
 *-------------------------------------------------------------------------
 */
#ifndef MMR_ROWSHOW_H
#define MMR_ROWSHOW_H

#include "row.h"

/*
 * The row as a JSON object of the sender's columns; palloc'd.  Of a very large
 * one only how large it is.  ERROR if a value does not decode: call it where
 * that can be borne.
 */
extern char *mmr_rowshow_json(MmrRowDescription *description, const char *data, int len);

#endif							/* MMR_ROWSHOW_H */
