// Package mux turns the concurrent commands of one process into few pipelines.
//
//	Get, Do, Force
//	     |
//	     v
//	+--------+   no slot is free   +-------+
//	| waiter | ------------------> | queue |
//	+--------+                     +-------+
//	  ^    |                           |  a slot becomes free
//	  |    |                           v
//	  |    |  a slot is free      +----------+      +--------+
//	  |    +--------------------> | pipeline | ---> | worker | ---> client, Redis
//	  |                           +----------+      +--------+
//	  |                                                 |
//	  +-------- its reply, its error, ErrTimeout -------+
//
// The words of this package:
//
//   - A waiter is one call of Get, or one round trip of a Do, Force or GetMany: its request, and the
//     place for its result.
//   - A node is one server of a cluster, or the only server. It has lanes, workers and a breaker of
//     its own. A call for several nodes is cut into the shares of each.
//   - A lane is the slots and the queue of requests of one kind: small ones, or those of many
//     commands or bytes, to Redis or (as learned from what came) back.
//   - A slot is the right to have a pipeline under way. There are MaxPipelines of them in a lane.
//   - The queue holds the waiters that found no slot free, in the order in which they came.
//   - A pipeline is one round trip, and the waiters that share it.
//   - A worker is a goroutine that makes one round trip after the other.
//
// A waiter that finds a slot free is sent at once, in a pipeline of its own. Those that come while
// all slots are taken queue, and share the next pipeline. So the load itself sets the size of the
// pipelines: one goroutine pays nothing for batching, and a thousand share a handful of round
// trips. The idea is that of group commit in databases (DeWitt et al., "Implementation Techniques
// for Main Memory Database Systems", SIGMOD 1984).
//
// No caller waits longer than its own context, or than the timeout while nothing comes, whatever
// the client does: workers make the round trips, and a worker whose client hangs is left to end in
// the background. The timeout begins anew with what shows that Redis is there: a large reply (for
// the pipeline that it belongs to, and for its lane's queue), a step of a new connection (likewise),
// the answer to another pipeline (for the queue). What the process itself could not do for lack of
// CPU does not count.
//
// There is one exception. On a client that obeys deadlines, a caller who has at least the timeout left
// sends its pipeline in person, which saves the switch to a worker and back. Nothing can call it away
// meanwhile: one that is cancelled while Redis hangs returns within the timeout, and a hook of that
// client that takes longer than the deadline holds the caller up.
//
// A circuit breaker spares callers the wait while a node is known to be down.
package mux
