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
//   - A waiter is one call of Get, Do or Force: its request, and the place for its result.
//   - A slot is the right to have a pipeline under way. There are MaxPipelines of them.
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
// No caller waits for Redis longer than the timeout or its own context, whatever the client does:
// workers make the round trips, and a worker whose client hangs is left to end in the background.
// There is one exception. A caller whose context cannot end, on a client that obeys deadlines,
// sends its pipeline in person, which saves the switch to a worker and back; a hook of that client
// that takes longer than the deadline holds the caller up.
//
// A circuit breaker spares callers the wait while Redis is known to be down.
package mux
