package workload

import (
	"fmt"
	"sync/atomic"
	"time"

	"github.com/dtm-labs/rockscache"
	"github.com/redis/go-redis/v9"

	"github.com/readthrough-go/readthrough/bench/measure"
	"github.com/readthrough-go/readthrough/internal/redistest"
)

// coldBatch is what it took to read keys of which none was in Redis.
type coldBatch struct {
	batches, loads, trips int64
	took                  time.Duration
}

// coldBatches reads cold keys, new ones each time.
func coldBatches(e *Env) (t Table, targets []Target, lost []string, err error) {
	server := redistest.Start(e)
	t = Table{
		Caption: fmt.Sprintf("cold, %d keys", e.BatchKeys),
		Columns: []string{"", "calls of the batch loader", "keys loaded", "round trips", "ms"},
	}
	seen := make(map[string][]coldBatch)
	for _, name := range []string{getMany, fetchBatch} {
		client := server.Client()
		readAll, err := openCold(e, name, client)
		if err != nil {
			return t, nil, nil, err
		}
		var trips atomic.Int64
		client.AddHook(&redistest.TripCounter{Trips: &trips})
		keys := keysOf(name, (e.Rounds+1)*e.BatchKeys)
		for round := range e.Rounds + 1 {
			trips.Store(0)
			began := time.Now()
			b, err := readAll(keys[round*e.BatchKeys : (round+1)*e.BatchKeys])
			if err != nil {
				return t, nil, nil, fmt.Errorf("%s: %w", name, err)
			}
			b.took, b.trips = time.Since(began), trips.Load()
			if round > 0 { // the first opens connections
				seen[name] = append(seen[name], b)
			}
		}
		t.addCold(name, seen[name])
	}
	if ours, theirs := medianTime(seen[getMany]), medianTime(seen[fetchBatch]); theirs < ours {
		lost = append(lost, fmt.Sprintf("%d cold keys: %s takes %s, %s %s", e.BatchKeys, getMany, formatMillis(ours), fetchBatch, formatMillis(theirs)))
	}
	var worst coldBatch
	for _, b := range seen[getMany] {
		worst.batches, worst.trips = max(worst.batches, b.batches), max(worst.trips, b.trips)
	}
	return t, []Target{
		atMost("cold GetMany: calls of the batch loader", 1, float64(worst.batches), "%.0f"),
		atMost("cold GetMany: round trips", 4, float64(worst.trips), "%.0f"),
	}, lost, nil
}

func medianOf(all []coldBatch, what func(coldBatch) int64) float64 {
	values := make([]float64, len(all))
	for i, b := range all {
		values[i] = float64(what(b))
	}
	return measure.Median(values)
}

func medianTime(all []coldBatch) time.Duration {
	return time.Duration(medianOf(all, func(b coldBatch) int64 { return int64(b.took) }))
}

// addCold adds the medians of one way to read many keys.
func (t *Table) addCold(name string, all []coldBatch) {
	t.Add(name,
		fmt.Sprintf("%.0f", medianOf(all, func(b coldBatch) int64 { return b.batches })),
		fmt.Sprintf("%.0f", medianOf(all, func(b coldBatch) int64 { return b.loads })),
		fmt.Sprintf("%.0f", medianOf(all, func(b coldBatch) int64 { return b.trips })),
		fmt.Sprintf("%.2f", float64(medianTime(all))/1e6))
}

// openCold returns the way to read many keys that has the name.
func openCold(e *Env, name string, client *redis.Client) (func(keys []string) (coldBatch, error), error) {
	var loads, batches atomic.Int64
	readAll := func(keys []string) error {
		return readFetchBatch(rockscache.NewClient(client, rockscache.NewDefaultOptions()), keys, &loads, &batches)
	}
	if name == getMany {
		ours, err := newBatchPeer(client, &loads, &batches)
		if err != nil {
			return nil, err
		}
		e.Cleanup(func() { _ = ours.Close() }) // it has served all its calls
		readAll = ours.getMany
	}
	return func(keys []string) (coldBatch, error) {
		loads.Store(0)
		batches.Store(0)
		err := readAll(keys)
		return coldBatch{batches: batches.Load(), loads: loads.Load()}, err
	}, nil
}
