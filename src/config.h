/*-------------------------------------------------------------------------
 * config.h
 *	  The configuration as one document that every db holds: who changes it
 *	  does so on all of them in one call.
 *
 * Floor 5 (calls attach and sequence).
 */
#ifndef MMR_CONFIG_H
#define MMR_CONFIG_H

#include "link.h"
#include "nodes/pg_list.h"

/*
 * First thing in a function that changes the configuration.  ERROR unless
 * the library is preloaded and the caller is a superuser or has the rights of
 * the extension's owner.  Serialises: locks the configuration here and on
 * every db that answers, with bounded waits; if one of them holds a newer
 * configuration, that is adopted first.  A db that does not answer is kept as
 * unusable.
 */
extern void mmr_config_begin(void);

/* The same, but that db is not spoken to: it speaks to us, and takes the outcome itself. */
extern void mmr_config_begin_without(int32 node_id);

/* Puts that document in place, for a db that has no node id yet: this is its new one. */
extern void mmr_config_take(const char *doc, int32 node_id);

/*
 * Last thing: makes what is now in the tables the next version, carries it to
 * every db that answers, makes triggers and sequences there and here what it
 * says, and wakes the workers when the transaction commits.  ERROR if a db of
 * `required` (list of int node ids; NIL: none) does not answer, a WARNING for
 * the others.
 */
extern void mmr_config_publish(List *required);

/*
 * The same for this database alone, in a worker that has locked local_node;
 * pushers carry it to the others when they meet.
 */
extern void mmr_config_publish_here(void);

/* ERROR that names the db and says why, unless it can be reached (or is this one). */
extern void mmr_config_require(int32 node_id);

/*
 * The pusher's handshake, inside a local transaction, on a link that has no
 * open one.  Compares the versions here and there.  The newer document goes
 * to the older side: adopt takes it from there, offer gives ours, or adopts
 * when it has become the older one.  True if ours has changed: the caller
 * commits and starts over.  Doing one or the other when it is not due is
 * harmless.  What does not work at the moment (locks) is an ERROR: try again
 * later.
 */
extern bool mmr_config_adopt(MmrLink *link);
extern bool mmr_config_offer(MmrLink *link, int32 node_id);

#endif							/* MMR_CONFIG_H */
