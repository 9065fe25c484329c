package lease_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/readthrough-go/readthrough/internal/lease"
)

// These tests drive the decisions of the cache (Protocol, and the Group that says who
// may share a result) through every interleaving of a small world: processes that
// Get one key while others change it, a Redis, a database, and what goes wrong
// between them. What is checked in every state:
//
//   - A Get that starts after an Invalidate has returned gets nothing that was
//     loaded before the write which that Invalidate followed.
//   - A fill is accepted only of the one flight whose lease has not been lost.
//   - Nobody waits for another load after one that it has waited for in vain.
//   - Somebody can go on, whatever does not happen, until all have what they want.
//
// An actor moves in steps: a command is sent, Redis does it, the answer arrives; a
// load begins, reads the database, ends. Any other actor may come in between.
// Where there are failovers, the Store is FailoverSafe.
// Callers do not give up here, nothing becomes stale by age, and there is one key.

func TestProtocol_IsCoherentInEveryInterleaving(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name string
		scenario
	}{
		{"a lease expires", scenario{callers: "AAB", writers: "B", polls: 1, leaseExpiries: 1}},
		{"an entry expires", scenario{callers: "AAB", writers: "B", leaseExpiries: 1, entryExpiries: 1}},
		{"a process crashes", scenario{callers: "AAB", writers: "A", polls: 1, leaseExpiries: 1, crashes: 1}},
		{"a writer crashes", scenario{callers: "AAB", writers: "B", leaseExpiries: 1, crashes: 1}},
		{"an answer is lost", scenario{callers: "AAB", writers: "B", lostAnswers: 1}},
		{"two answers are lost", scenario{callers: "AB", writers: "B", leaseExpiries: 1, lostAnswers: 2, crashes: 1}},
		{"a value cannot be stored", scenario{callers: "AAB", writers: "B", leaseExpiries: 1, unstorable: 1}},
		{"a load fails while another waits for it", scenario{callers: "AAB", writers: "B", polls: 1, unstorable: 1}},
		{"two processes write", scenario{callers: "AB", writers: "AB", polls: 1, leaseExpiries: 2, crashes: 1}},
		{"one sets, one invalidates", scenario{callers: "AB", writers: "AB", sets: 1, oneByOne: true, leaseExpiries: 2}},
		{"one invalidates, one sets", scenario{callers: "AB", writers: "AB", sets: 2, oneByOne: true, leaseExpiries: 2}},
		{"callers of one process", scenario{callers: "AA", writers: "B", polls: 1, leaseExpiries: 1, lostAnswers: 1, unstorable: 1}},
		{"one refreshes", scenario{callers: "AaB", writers: "B", polls: 1, leaseExpiries: 1}},
		{"two refresh", scenario{callers: "aab", writers: "B", lostAnswers: 1}},
		{"one refreshes, and Redis fails", scenario{callers: "Aa", writers: "A", leaseExpiries: 1, lostAnswers: 1, unstorable: 1}},
		{"a refresh in the background", scenario{callers: "AAB", writers: "B", refresher: true}},
		{"a refresh in the background, and one at once", scenario{callers: "Aa", writers: "AB", oneByOne: true, refresher: true, leaseExpiries: 1}},
		{"a command is sent twice", scenario{callers: "AA", writers: "B", polls: 1, leaseExpiries: 1, resends: 1}},
		{"two commands are sent twice", scenario{callers: "AB", writers: "B", resends: 2}},
		{"a command is sent twice, and Redis fails", scenario{callers: "AB", writers: "B", lostAnswers: 1, resends: 1, crashes: 1}},
		{"a command is sent twice, and a value cannot be stored", scenario{callers: "AB", writers: "B", polls: 1, leaseExpiries: 1, resends: 1, unstorable: 1}},
		{"a refresh is sent twice", scenario{callers: "Aa", writers: "A", leaseExpiries: 1, resends: 1}},
		{"a failover", scenario{callers: "AAB", writers: "B", replications: 1, failovers: 1}},
		{"a failover, and a lease expires", scenario{callers: "AB", writers: "B", polls: 1, leaseExpiries: 1, replications: 1, failovers: 1}},
		{"a failover, and an answer is lost", scenario{callers: "AA", writers: "B", lostAnswers: 1, replications: 1, failovers: 1}},
		{"a failover, and a command is sent twice", scenario{callers: "AA", writers: "B", resends: 1, replications: 1, failovers: 1}},
		{"a failover, and a value cannot be stored", scenario{callers: "AB", writers: "B", polls: 1, unstorable: 1, replications: 1, failovers: 1}},
		{"a failover there and back", scenario{callers: "AB", writers: "B", replications: 2, failovers: 2}},
		{"a failover, one sets, one invalidates", scenario{callers: "AB", writers: "AB", sets: 1, oneByOne: true, replications: 1, failovers: 1}},
		{"a failover, and one refreshes", scenario{callers: "Aa", writers: "B", replications: 1, failovers: 1}},
		{"everything at once", scenario{callers: "AAB", writers: "AB", leaseExpiries: 1, crashes: 1}},
	} {
		t.Run(c.name, func(t *testing.T) {
			if len(c.callers+c.writers) == 5 && testing.Short() || len(c.callers) == 3 && underRace {
				t.Skip("takes long, and the others have its parts")
			}
			t.Parallel()
			requireCoherent(t, c.scenario)
		})
	}
}

func requireCoherent(t *testing.T, s scenario) {
	m := &model{rules: realRules(), scenario: s, group: newConformance(t)}
	e := newExplorer(m)
	ways, ok := e.explore()
	if !ok {
		schedule, broken := e.schedule, e.violation
		if shorter, found := m.shortest(broken); found {
			schedule = shorter
		}
		story := m.narrate(schedule)
		t.Fatalf("broken: %s; %s\n%s", broken, m.detail, story)
	}
	t.Logf("%d states, %d steps between them, %v interleavings, none longer than %d steps",
		len(e.ways), e.steps, ways, e.longest)
	t.Logf("%d calls of a flight.Group, each done by a real one", len(m.group.tried))
}

// What is merged must make no difference: then there are as many interleavings.
func TestMerging_LosesNoInterleaving(t *testing.T) {
	t.Parallel()
	for _, s := range []scenario{
		{callers: "AA", writers: "AB"},
		{callers: "AB", writers: "A", polls: 1, leaseExpiries: 1, crashes: 1},
		{callers: "AA", writers: "A", lostAnswers: 1, unstorable: 1},
		{callers: "Aa", writers: "A", leaseExpiries: 1},
		{callers: "A", writers: "AB", refresher: true},
		{callers: "AB", writers: "A", replications: 1, failovers: 2},
		{callers: "AA", writers: "B", refresher: true},
		{callers: "AB", writers: "AB", sets: 2, oneByOne: true, leaseExpiries: 1},
		{callers: "AA", writers: "B", leaseExpiries: 1, resends: 2},
		{callers: "Ab", writers: "B", leaseExpiries: 1, resends: 1},
		{callers: "AB", writers: "A", polls: 1, unstorable: 1, resends: 1},
	} {
		if underRace && s.resends > 0 {
			continue // takes long
		}
		merged := newExplorer(&model{rules: realRules(), scenario: s, group: newConformance(t)})
		plain := newExplorer(&model{rules: realRules(), scenario: s, group: newConformance(t)})
		plain.plain = true
		got, ok := merged.explore()
		require.True(t, ok)
		want, ok := plain.explore()
		require.True(t, ok)
		require.Equal(t, want, got, "%+v", s)
		require.Less(t, len(merged.ways), len(plain.ways))
		t.Logf("%v interleavings of %d states, or of %d when merged", got, len(plain.ways), len(merged.ways))
	}
}

// Each rule of the protocol is left out once: then the search must find a schedule
// that breaks a promise. So it can find one, and the rule is needed.
func TestProtocol_NeedsEachOfItsRules(t *testing.T) {
	t.Parallel()
	one := scenario{callers: "AA", writers: "B"}
	two := scenario{callers: "AAB", writers: "B"} // processes that load
	for _, c := range []struct {
		rule string
		in   scenario
		out  promise
		omit func(r *rules)
	}{
		{"a found entry is for those who joined before it was asked for", two, neverStale,
			serveAll(func(f *flying) bool { return f.Audience == lease.BeforeSend && f.began == 0 })},
		{"the mark is taken before the acquire is sent", two, neverStale,
			func(r *rules) { r.marksLate = true }},
		{"a load without the lease is for those who joined before it", two, neverStale,
			serveAll(func(f *flying) bool { return f.at == loaded })},
		{"an accepted fill is for those who joined before it was sent", one, neverStale,
			func(r *rules) {
				r.settling = mark // Leave alone keeps the others out
				serveAll(func(f *flying) bool { return f.Audience == lease.BeforeSend })(r)
			}},
		{"a refused fill is for those who joined before the load", one, neverStale,
			func(r *rules) {
				r.onSettle = func(p *lease.Protocol, _, failed bool) { p.OnSettle(true, failed) }
			}},
		{"so is a fill of unknown fate", scenario{callers: "AA", writers: "B", lostAnswers: 1}, neverStale,
			func(r *rules) {
				r.onSettle = func(p *lease.Protocol, kept, failed bool) { p.OnSettle(kept || failed, failed) }
			}},
		{"who is answered early has joined before the load", one, neverStale,
			func(r *rules) { r.early = func(f *flying) int8 { return f.sent } }},
		{"a fill needs the lease", one, neverStale, func(r *rules) { r.fillsAnyway = true }},
		{"a fill needs its own lease", one, ownersFill, func(r *rules) { r.fillsAnyway = true }},
		{"Invalidate deletes the lease", one, neverStale, func(r *rules) { r.keepsLease = true }},
		{"so does Set", scenario{callers: "AA", writers: "B", sets: 1}, neverStale, func(r *rules) { r.keepsLease = true }},
		{"a write deletes the lease before it changes the entry", one, neverStale, func(r *rules) { r.entryBeforeLease = true }},
		{"a Refresh gets what was loaded after it came", scenario{callers: "aa", writers: "B"}, neverStale,
			func(r *rules) {
				before := r.before
				r.before = func(f *flying) (int8, int8) {
					b, _ := before(f)
					return b, everyone
				}
			}},
		{"a refresh that leaves the load to another process has no result", scenario{callers: "BAb", writers: "B", refresher: true}, neverStale,
			serveAll(func(f *flying) bool { return f.Audience == lease.Nobody })},
		{"those who wait are told of a load that brings nothing", scenario{callers: "AAB", polls: 1, unstorable: 1}, neverQueued,
			func(r *rules) { r.tellsNobody = true }},
		{"each attempt at a lease has a token of its own", scenario{callers: "AA", writers: "B", resends: 1}, neverStale,
			func(r *rules) { r.sameToken = true }},
		{"a release needs the lease of its own attempt", scenario{callers: "AA", writers: "B", resends: 1, unstorable: 1}, neverStale,
			func(r *rules) { r.trustsAny = true }},
		{"an entry is served by the primary that took it", scenario{callers: "AB", writers: "B", replications: 1, failovers: 1}, neverStale,
			func(r *rules) { r.servesForeign = true }},
		{"a fill needs a lease of the same primary", scenario{callers: "AB", writers: "B", replications: 1, failovers: 1}, neverStale,
			func(r *rules) { r.fillsForeign = true }},
		{"a failover takes the leases of those that load", scenario{callers: "AA", writers: "B", replications: 1, failovers: 1}, ownersFill,
			func(r *rules) { r.fillsForeign = true }},
		{"a primary has an ID that there never was before", scenario{callers: "AB", writers: "B", replications: 2, failovers: 2}, neverStale,
			func(r *rules) { r.idsComeBack = true }},
		{"waiting ends", scenario{callers: "AB", writers: "A", crashes: 1}, neverStuck,
			func(r *rules) { r.waitsForever = true }},
	} {
		t.Run(c.rule, func(t *testing.T) {
			m := &model{rules: realRules(), scenario: c.in, group: newConformance(t)}
			c.omit(&m.rules)
			schedule, found := m.shortest(c.out)
			require.True(t, found, "the rule is not needed, or the search is blind")
			story := m.narrate(schedule)
			t.Logf("broken: %s; %s\n%s", c.out, m.detail, story)
		})
	}
}

// A Refresh that took what it found would have to start over, for ever.
func TestProtocol_StealsLeaseToRefreshOrGoesRoundInCircles(t *testing.T) {
	m := &model{rules: realRules(), scenario: scenario{callers: "Aa", writers: "B"}, group: newConformance(t)}
	m.neverSteals = true
	e := newExplorer(m)
	_, ok := e.explore()
	require.False(t, ok)
	require.Equal(t, neverCircle, e.violation)
}

// serveAll gives the result to everyone who has joined, in some cases.
func serveAll(when func(f *flying) bool) func(r *rules) {
	return func(r *rules) {
		before := r.before
		r.before = func(f *flying) (int8, int8) {
			if when(f) {
				return everyone, f.began
			}
			return before(f)
		}
	}
}
