// Package local keeps copies of entries in this process, none of which is served after an
// invalidation of it has returned, in any process.
//
// A process keeps copies under a lease of its own, for a second say, which it renews through
// Redis. Whoever invalidates keys deletes their entries, and then fences: a script numbers the
// invalidation and publishes the keys. Each process drops its copies and acknowledges, and the
// writer returns when all have, or when every lease is over that a silent process may hold.
//
//	writer              Redis                        listener of each process
//	  │   UNLINK ...      │                              │
//	  ├──────────────────>│                              │
//	  │   fence           │  F prev seq keys             │
//	  ├──────────────────>├─────────────────────────────>│ drops the copies of the keys,
//	  │                   │                              │ and moves their guards
//	  │                   │                          ack │
//	  │        A min gen  │<─────────────────────────────┤
//	  │<──────────────────┤                              │
//	returns               │  E sent seq                  │
//	                      ├─────────────────────────────>│ renews the lease, counted from sent
//
// Renewals are echoed on the same connection as fences: an echo proves that all fences before it
// were processed. A member is a process with copies; the table in Redis holds the number of the
// last fence that each has acknowledged. A member that is late is refused renewals, and removed one
// lease later: so a process that dies costs writers one stall, of 1.1 leases at most.
//
// The rule is that of Chubby (Burrows, OSDI 2006: a write waits until each caching client has
// acknowledged or its lease is over), with one lease for each process, not for each key (volume
// leases: Yin, Alvisi, Dahlin, Lin, ICDCS 1998). Clocks are monotonic, only durations are compared,
// and the rates of two clocks may differ by 1 %.
//
// What may be decided without doing anything is in protocol.go, which the model in this package
// drives; the rest carries it out: tier.go, listener.go, fence.go, ack.go, script.go, store.go.
package local
