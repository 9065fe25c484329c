package workload

import (
	"context"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/readthrough-go/readthrough/bench/peers"
	"github.com/readthrough-go/readthrough/internal/redistest"
)

const (
	oldRow = "old"
	newRow = "new"

	// joinTime is what a caller gets to join a load under way, which no peer announces.
	joinTime = 100 * time.Millisecond
	// repairTime is what a peer gets to replace what it has served stale.
	repairTime = 300 * time.Millisecond
)

// Verdict is what those see who read after the row was changed and its key deleted.
type Verdict string

// The verdicts.
const (
	Fresh        Verdict = "fresh"
	StaleAtFirst Verdict = "stale at first"
	StaleForTTL  Verdict = "stale until its TTL ends"
	StaleOnce    Verdict = "stale" // asked of one call only
)

// Races are the verdicts on one peer.
type Races struct {
	LateFill Verdict // a load that began before the change ends after it
	LateJoin Verdict // a call after the change, in the process in which that load runs
	Warm     Verdict // the old row was in Redis
}

var racers = []string{
	peers.Readthrough, peers.Raw, peers.GoRedisCache, peers.RockscacheWeak, peers.RockscacheStrong, peers.Rueidis,
}

// LostRace lets an update overtake a load.
func LostRace(e *Env) (*Section, error) {
	t := Table{Columns: []string{"", "late fill", "late join", "was in Redis"}}
	stale := 0
	for _, name := range racers {
		races, err := racesOf(e, name)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		for _, v := range []Verdict{races.LateFill, races.LateJoin, races.Warm} {
			if name == peers.Readthrough && v != Fresh {
				stale++
			}
		}
		t.Add(name, string(races.LateFill), string(races.LateJoin), string(races.Warm))
	}
	return &Section{
		Title: "The lost race",
		Text: "A reader has loaded the old row and not yet stored it. A writer in another process changes the row and deletes the key, " +
			"by the peer's own call, which returns. *Late fill*: now the reader goes on and stores what it has; what do later readers get? " +
			"*Late join*: what does a caller get who comes after that deletion, in the reader's process, while its load still runs? " +
			"*Was in Redis*: the old row was stored, then changed and deleted; what do later readers get? Each order of events is forced.",
		Tables:  []Table{t},
		Targets: []Target{atMost("lost race: orders of events in which a later reader gets the old row", 0, float64(stale), "%.0f")},
	}, nil
}

// racesOf runs the three races of one peer.
func racesOf(e *Env, name string) (Races, error) {
	r := racecourse{e: e, name: name, addr: redistest.Start(e).Addr()}
	var races Races
	var err error
	if races.LateFill, races.LateJoin, err = r.overtaken("race:0000001"); err != nil {
		return races, err
	}
	races.Warm, err = r.warm("race:0000002")
	return races, err
}

// racecourse is the server on which a peer races.
type racecourse struct {
	e          *Env
	name, addr string
}

// row is a row of the database. Its first reader is held up after it has read.
type row struct {
	value   atomic.Value
	held    atomic.Bool
	reading chan struct{} // closed when the first reader has read
	goOn    chan struct{} // closed to let it go on
}

func newRowOf(value string) *row {
	r := &row{reading: make(chan struct{}), goOn: make(chan struct{})}
	r.value.Store(value)
	return r
}

func (r *row) load(context.Context, string) (string, error) { return r.value.Load().(string), nil }

func (r *row) slowLoad(ctx context.Context, key string) (string, error) {
	v, err := r.load(ctx, key)
	if r.held.CompareAndSwap(false, true) {
		close(r.reading)
		<-r.goOn
	}
	return v, err
}

// overtaken has a writer overtake a reader.
func (r racecourse) overtaken(key string) (fill, join Verdict, err error) {
	row := newRowOf(oldRow)
	reader, err := r.open(row.slowLoad)
	if err != nil {
		return "", "", err
	}
	writer, err := r.open(row.load)
	if err != nil {
		return "", "", err
	}
	ctx := context.Background()
	first := r.ask(reader, key)
	<-row.reading
	row.value.Store(newRow)
	invalidated := writer.Invalidate(ctx, key)
	late := r.ask(reader, key)
	var joined answer
	select {
	case joined = <-late: // it did not wait for the load under way
		close(row.goOn)
	case <-time.After(joinTime):
		close(row.goOn)
		joined = <-late
	}
	early := <-first
	for _, err := range []error{invalidated, early.err, joined.err} {
		if err != nil {
			return "", "", err
		}
	}
	if early.value != oldRow {
		return "", "", fmt.Errorf("the reader held up got %q: nothing was overtaken", early.value)
	}
	join = Fresh
	if joined.value != newRow {
		join = StaleOnce
	}
	fill, err = verdict(writer, key)
	return fill, join, err
}

// warm changes a row that is in Redis.
func (r racecourse) warm(key string) (Verdict, error) {
	row := newRowOf(oldRow)
	peer, err := r.open(row.load)
	if err != nil {
		return "", err
	}
	if _, err := peer.Get(context.Background(), key); err != nil {
		return "", err
	}
	row.value.Store(newRow)
	if err := peer.Invalidate(context.Background(), key); err != nil {
		return "", err
	}
	return verdict(peer, key)
}

// verdict reads a key whose row has changed, and again if that was stale.
func verdict(peer peers.Peer[string], key string) (Verdict, error) {
	v, err := peer.Get(context.Background(), key)
	if err != nil || v == newRow {
		return Fresh, err
	}
	time.Sleep(repairTime)
	v, err = peer.Get(context.Background(), key)
	if err != nil || v == newRow {
		return StaleAtFirst, err
	}
	return StaleForTTL, nil
}

// open opens a peer, as another process would.
func (r racecourse) open(load peers.Loader[string]) (peers.Peer[string], error) {
	peer, err := peers.All[string]()[r.name](r.addr, load)
	if err == nil {
		r.e.Cleanup(func() { _ = peer.Close() }) // it has served all its calls
	}
	return peer, err
}

// answer is what a call returned.
type answer struct {
	value string
	err   error
}

// ask calls Get on a goroutine, which ends with the call.
func (r racecourse) ask(peer peers.Peer[string], key string) <-chan answer {
	answers := make(chan answer, 1)
	go func() {
		v, err := peer.Get(context.Background(), key)
		answers <- answer{v, err}
	}()
	return answers
}
