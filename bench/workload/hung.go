package workload

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/readthrough-go/readthrough/bench/peers"
	"github.com/readthrough-go/readthrough/internal/redistest"
)

const (
	hungCallers = 64
	// hungLoad is how long the loader takes while Redis hangs.
	hungLoad = time.Millisecond
	// settled is the share of the hang after which a breaker has surely opened.
	settled = 0.5
)

// hungCall is a call made while Redis did not answer.
type hungCall struct {
	after, took time.Duration // since the server stopped; until the answer
}

// Hung stops the server for a while and has callers go on calling.
func Hung(e *Env) (*Section, error) {
	t := Table{Columns: []string{"", "calls", "worst", "median", "calls in the second half", "their median", "calls failed"}}
	var worst, settledMedian time.Duration
	for _, name := range []string{
		peers.Readthrough, peers.Raw, peers.AutoPipeline, peers.FullDuplex, peers.GoRedisCache, peers.RockscacheWeak, peers.Rueidis,
	} {
		calls, failed, err := hang(e, name)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		all, late := spread(calls, 0), spread(calls, time.Duration(settled*float64(e.Hang)))
		if name == peers.Readthrough {
			worst, settledMedian = all.worst, late.median
		}
		lateMedian := "none was made"
		if late.n > 0 {
			lateMedian = formatMillis(late.median)
		}
		t.Add(name, fmt.Sprint(all.n), formatMillis(all.worst), formatMillis(all.median), fmt.Sprint(late.n), lateMedian, fmt.Sprint(failed))
	}
	return &Section{
		Title: "A server that hangs",
		Text: fmt.Sprintf("redis-server is stopped with SIGSTOP for %v while %d goroutines call, each as soon as its last call was answered. "+
			"The keys are in Redis; the loader takes %v. Clients have default options. Whoever gets an error from Redis asks the loader. "+
			"In the second half of the hang the breaker is open, where there is one.", e.Hang, hungCallers, hungLoad),
		Tables: []Table{t},
		Targets: []Target{
			atMost("hung server: worst call, ms (100 ms for Redis, and the load)", 150, float64(worst)/1e6, "%.0f"),
			atMost("hung server: median call once the breaker is open, ms (a load takes 1)", 3, float64(settledMedian)/1e6, "%.1f"),
		},
	}, nil
}

// hang is what the callers of one peer see of a server that hangs.
func hang(e *Env, name string) (calls []hungCall, failed int64, err error) {
	server := redistest.Start(e)
	var slow atomic.Bool
	peer, err := peers.All[Book]()[name](server.Addr(), func(ctx context.Context, key string) (Book, error) {
		if slow.Load() {
			time.Sleep(hungLoad)
		}
		return loadBook(ctx, key)
	})
	if err != nil {
		return nil, 0, err
	}
	defer peer.Close() // Redis is back by then
	keys := keysOf(name, e.Keys)
	if _, err := hitOp(peer, keys); err != nil {
		return nil, 0, err
	}
	slow.Store(true)
	server.Pause()
	began := time.Now()
	var wg sync.WaitGroup
	var failures atomic.Int64
	seen := make([][]hungCall, hungCallers)
	for i := range hungCallers {
		wg.Go(func() { // ends with the first answer after the hang
			for call := i; time.Since(began) < e.Hang; call += hungCallers {
				after := time.Since(began)
				if _, err := peer.Get(context.Background(), keys[call%len(keys)]); err != nil {
					failures.Add(1)
				}
				seen[i] = append(seen[i], hungCall{after, time.Since(began) - after})
			}
		})
	}
	time.Sleep(e.Hang - time.Since(began))
	server.Resume()
	wg.Wait()
	return slices.Concat(seen...), failures.Load(), nil
}

// waits is how long some calls took.
type waits struct {
	n             int
	median, worst time.Duration
}

// spread looks at the calls made from some time on.
func spread(calls []hungCall, from time.Duration) waits {
	var took []time.Duration
	for _, c := range calls {
		if c.after >= from {
			took = append(took, c.took)
		}
	}
	if len(took) == 0 {
		return waits{}
	}
	slices.Sort(took)
	return waits{len(took), took[len(took)/2], took[len(took)-1]}
}
