//go:build linux

package coherence

import (
	"cmp"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/anishathalye/porcupine"
)

// opKind is what an operation does.
type opKind string

const (
	opGet        opKind = "Get"
	opRefresh    opKind = "Refresh"
	opWrite      opKind = "write" // to the database
	opInvalidate opKind = "Invalidate"
	opSet        opKind = "Set"

	// What follows is made of the above, or is no operation of the cache's users.
	opGetMany         opKind = "GetMany"    // a Get of each of its keys
	opUpdate          opKind = "update"     // a write, and an Invalidate
	opSetNew          opKind = "set new"    // a write, and a Set of what was written
	opUpdateLeased    opKind = "Update"     // noted as the write, and an Invalidate from then to its return
	opSabotage        opKind = "sabotage"   // the entry or the lease is deleted or expires
	opInvalidateAgain opKind = "invalidate" // an Invalidate without a write
	opExpire          opKind = "expire"     // promises nothing, and must harm nothing
)

// historyOp is one call of one client for one key. Call and Return are read from one clock in all
// processes: before the call, and after its return.
type historyOp struct {
	Key     int    `json:"k"`
	Action  opKind `json:"a"`
	Version int64  `json:"v,omitempty"` // got, written or set
	Client  int    `json:"c"`
	Call    int64  `json:"b"`
	Return  int64  `json:"e"`
}

func (o historyOp) String() string {
	if o.Action == opInvalidate {
		return string(o.Action)
	}
	return fmt.Sprintf("%s %d", o.Action, o.Version)
}

// keyState is what the model knows of a key. A version counts the writes to its row.
type keyState struct {
	written int64 // the version in the database
	floor   int64 // the version that was in the database at the last Invalidate or Set
	lastSet int64 // what that Set stored; notSet after an Invalidate
}

const notSet = -1

// coherent is the promise as a sequential object, whose operations each take effect at one moment
// between their call and their return:
//
//	write v       the database goes from v-1 to v
//	Invalidate    remembers the database's version as the floor
//	Set v         likewise, and v may be got although it may be older than the
//	              floor: of two writers, the one that wrote first may set last
//	Get v         floor <= v <= written, or v was set last
//	Refresh v     v is what the database holds: it loads after it was called
//
// This is the promise of coherence, no more and no less. No more: let a Get return v, and take the
// moment at which the protocol made sure of v, which lies within the call: the lookup that hit, the
// acquire that found the entry, the accepted fill, or else the load itself. If v was loaded, no
// Invalidate took effect between that load and that moment, so v is at least the floor then. No
// less: if a value loaded before an Invalidate had an effect that shows (the row was written to in
// between) and is returned by a Get that began after the Invalidate had returned, v is below the
// floor at each moment of that Get, and below every later one.
//
// A register would promise more: that a Get which begins after a write has returned sees it. But
// between the write and the Invalidate the entry is still there, and a process may return the new
// version from a load of its own before another returns the old one from the entry. So both are
// right, in any order, until the Invalidate.
var coherent = porcupine.Model{
	Init: func() any { return keyState{lastSet: notSet} },
	Step: func(state, input, _ any) (bool, any) {
		s := state.(keyState)
		switch o := input.(historyOp); o.Action {
		case opWrite:
			return o.Version == s.written+1, keyState{o.Version, s.floor, s.lastSet}
		case opInvalidate:
			return true, keyState{s.written, s.written, notSet}
		case opSet:
			return o.Version <= s.written, keyState{s.written, s.written, o.Version}
		case opGet:
			return s.floor <= o.Version && o.Version <= s.written || o.Version == s.lastSet, s
		case opRefresh:
			return o.Version == s.written, s
		}
		return false, s
	},
	DescribeOperation: func(input, _ any) string { return input.(historyOp).String() },
	DescribeState:     func(state any) string { return fmt.Sprintf("%+v", state) },
}

const (
	// checkLimit bounds the search for an order of a key's operations.
	checkLimit = time.Minute
	// easyLimit is far more than it takes where there is one. To make sure that there is none takes
	// time exponential in the number of concurrent operations.
	easyLimit = time.Second
)

// checkHistory decides whether the history of one key is coherent. If it is not, it returns what of
// it shows that.
func checkHistory(ops []historyOp) (porcupine.CheckResult, []historyOp) {
	if searchOrder(ops, easyLimit) == porcupine.Ok {
		return porcupine.Ok, nil
	}
	// A read changes nothing, so without the others it must be explained just as well. If it is
	// not, that is found fast, and easy to read.
	var changes, reads []historyOp
	for _, o := range ops {
		if o.Action == opGet || o.Action == opRefresh {
			reads = append(reads, o)
		} else {
			changes = append(changes, o)
		}
	}
	for _, r := range reads {
		if one := append(slices.Clip(changes), r); searchOrder(one, checkLimit) == porcupine.Illegal {
			return porcupine.Illegal, slices.DeleteFunc(one, func(o historyOp) bool { return o.Call > r.Return })
		}
	}
	return searchOrder(ops, checkLimit), ops
}

func searchOrder(ops []historyOp, limit time.Duration) porcupine.CheckResult {
	return porcupine.CheckOperationsTimeout(coherent, toPorcupine(ops), limit)
}

func toPorcupine(ops []historyOp) []porcupine.Operation {
	history := make([]porcupine.Operation, len(ops))
	for i, o := range ops {
		history[i] = porcupine.Operation{ClientId: o.Client, Input: o, Call: o.Call, Return: o.Return}
	}
	return history
}

// historyText returns the end of a history, as lines to read.
func historyText(ops []historyOp) string {
	const shown = 20
	ops = slices.SortedFunc(slices.Values(ops), func(a, b historyOp) int { return cmp.Compare(a.Call, b.Call) })
	start := ops[0].Call
	var lines strings.Builder
	fmt.Fprintf(&lines, "%10s %10s  %-6s  %s\n", "call µs", "return µs", "client", "operation")
	for _, o := range ops[max(0, len(ops)-shown):] {
		fmt.Fprintf(&lines, "%10d %10d  %-6d  %v\n", (o.Call-start)/1000, (o.Return-start)/1000, o.Client, o)
	}
	return lines.String()
}

// visualize leaves a page that shows the history. It is kept if the tests run with -artifacts.
func visualize(t *testing.T, name string, ops []historyOp) {
	_, info := porcupine.CheckOperationsVerbose(coherent, toPorcupine(ops), checkLimit)
	path := filepath.Join(t.ArtifactDir(), name+".html")
	if err := porcupine.VisualizePath(coherent, info, path); err != nil {
		t.Errorf("visualize: %v", err)
		return
	}
	t.Logf("the history as a page, kept with -artifacts: %s", path)
}

// Histories whose verdict is known: the check must tell these apart before it is believed about
// others.
func TestModel_TellsRightFromWrong(t *testing.T) {
	at := func(call, ret int64, a opKind, v int64) historyOp {
		return historyOp{Action: a, Version: v, Call: call, Return: ret}
	}
	for name, c := range map[string]struct {
		want porcupine.CheckResult
		ops  []historyOp
	}{
		"both versions before the Invalidate, the older one last": {porcupine.Ok, []historyOp{
			at(1, 2, opWrite, 1), at(3, 4, opGet, 1), at(5, 6, opGet, 0), at(7, 8, opInvalidate, 0)}},
		"the older version during the Invalidate": {porcupine.Ok, []historyOp{
			at(1, 2, opWrite, 1), at(3, 6, opInvalidate, 0), at(4, 5, opGet, 0)}},
		"the older version after the Invalidate, by a Get that began before": {porcupine.Ok, []historyOp{
			at(1, 2, opWrite, 1), at(3, 5, opInvalidate, 0), at(4, 9, opGet, 0)}},
		"the older version after the Invalidate": {porcupine.Illegal, []historyOp{
			at(1, 2, opWrite, 1), at(3, 4, opInvalidate, 0), at(5, 6, opGet, 0)}},
		"a version that nobody wrote": {porcupine.Illegal, []historyOp{at(1, 2, opWrite, 1), at(3, 4, opGet, 2)}},
		"what was set last, though older": {porcupine.Ok, []historyOp{
			at(1, 2, opWrite, 1), at(3, 4, opWrite, 2), at(5, 6, opSet, 2), at(7, 8, opSet, 1), at(9, 10, opGet, 1), at(11, 12, opGet, 2)}},
		"what was set before the last Set": {porcupine.Illegal, []historyOp{
			at(1, 2, opWrite, 1), at(3, 4, opWrite, 2), at(5, 6, opSet, 1), at(7, 8, opSet, 2), at(9, 10, opGet, 1)}},
		"what was set, after an Invalidate": {porcupine.Illegal, []historyOp{
			at(1, 2, opWrite, 1), at(3, 4, opWrite, 2), at(5, 6, opSet, 1), at(7, 8, opInvalidate, 0), at(9, 10, opGet, 1)}},
		"a Refresh that loaded before it was called": {porcupine.Illegal, []historyOp{
			at(1, 2, opWrite, 1), at(3, 4, opRefresh, 0)}},
		"a Refresh of either version during the write": {porcupine.Ok, []historyOp{
			at(1, 9, opWrite, 1), at(2, 3, opRefresh, 0), at(4, 5, opRefresh, 1)}},
	} {
		t.Run(name, func(t *testing.T) {
			if got, _ := checkHistory(c.ops); got != c.want {
				t.Errorf("%s, want %s", got, c.want)
			}
		})
	}
}
