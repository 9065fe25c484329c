//go:build linux

package readthrough_test

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/maypok86/otter/v2"
	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"

	"github.com/readthrough-go/readthrough"
	"github.com/readthrough-go/readthrough/internal/redistest"
)

// tenFields is a row of a usual size, without pointers.
type tenFields struct {
	ID, A, B, C, D, E int64
	Name, Mail, City  string
	At                time.Time
}

const benchKeys = 1000

// onGoroutines runs get, for one key after the other, b.N times on n goroutines.
func onGoroutines(b *testing.B, n int, get func(k int)) {
	b.Helper()
	b.ReportAllocs()
	var wg sync.WaitGroup
	b.ResetTimer()
	before := cpuTime()
	for g := range n {
		wg.Go(func() {
			for i := range b.N / n {
				get((i + g) % benchKeys)
			}
		})
	}
	wg.Wait()
	b.ReportMetric(float64(cpuTime()-before)/float64(b.N), "cpu-ns/op") // which a busy machine leaves alone
}

func cpuTime() int64 {
	var used syscall.Rusage
	_ = syscall.Getrusage(syscall.RUSAGE_SELF, &used)
	return used.Utime.Nano() + used.Stime.Nano()
}

// BenchmarkLocal_Hit compares a hit of a copy with one of otter that expires its entries.
func BenchmarkLocal_Hit(b *testing.B) {
	client := redistest.Start(b).Client()
	cache, err := readthrough.NewCache(client, readthrough.WithLocal(64<<20), readthrough.WithTTL(time.Hour), readthrough.WithLocalTTL(time.Hour))
	require.NoError(b, err)
	b.Cleanup(func() { _ = cache.Close() })
	load := func(_ context.Context, k string) (tenFields, error) { return tenFields{Name: k}, nil }
	rt, err := readthrough.New(cache, "ten", load, readthrough.String)
	require.NoError(b, err)
	pointers, err := readthrough.New(cache, "pointers", func(_ context.Context, k string) (*tenFields, error) { return &tenFields{Name: k}, nil }, readthrough.String)
	require.NoError(b, err)
	keys := make([]string, benchKeys)
	for i := range keys {
		keys[i] = strconv.Itoa(i)
	}
	ctx := context.Background()
	require.Eventually(b, func() bool { _, info, _ := rt.GetInfo(ctx, keys[0]); return info.Source == readthrough.SourceLocal }, time.Minute, time.Millisecond)
	expiring := otter.Must(&otter.Options[string, tenFields]{MaximumSize: 10 * benchKeys, ExpiryCalculator: otter.ExpiryWriting[string, tenFields](time.Hour)})
	defer expiring.StopAllGoroutines()
	for _, k := range keys {
		_, _ = rt.Get(ctx, k)
		_, _ = pointers.Get(ctx, k)
		expiring.Set(k, tenFields{Name: k})
	}
	for _, n := range []int{1, 16, 128} {
		b.Run(fmt.Sprintf("WithLocal/g=%d", n), func(b *testing.B) { onGoroutines(b, n, func(k int) { _, _ = rt.Get(ctx, keys[k]) }) })
		b.Run(fmt.Sprintf("otter that expires/g=%d", n), func(b *testing.B) { onGoroutines(b, n, func(k int) { _, _ = expiring.GetIfPresent(keys[k]) }) })
	}
	b.Run("WithLocal, own value/g=1", func(b *testing.B) { onGoroutines(b, 1, func(k int) { _, _ = pointers.Get(ctx, keys[k]) }) })
	b.Run("GetMany of 1000", func(b *testing.B) {
		for b.Loop() {
			_, _ = rt.GetMany(ctx, keys)
		}
	})
	require.Less(b, rt.Stats().Hits, int64(benchKeys*10))
}

// BenchmarkLocal_Invalidate measures a write in a fleet of Caches in one process.
func BenchmarkLocal_Invalidate(b *testing.B) {
	for _, mode := range []readthrough.LocalMode{readthrough.LocalStrict, readthrough.LocalEventual} {
		for _, n := range []int{1, 4, 16, 50, 200} {
			b.Run(fmt.Sprintf("%s/processes=%d", []string{"strict", "eventual"}[mode], n), func(b *testing.B) {
				server := redistest.Start(b)
				var rts []*readthrough.ReadThrough[string, tenFields]
				for range n {
					cache, err := readthrough.NewCache(server.Client(func(o *redis.Options) { o.PoolSize = 4 }), readthrough.WithLocal(1<<20), readthrough.WithLocalMode(mode), readthrough.WithRedisTimeout(time.Minute))
					require.NoError(b, err)
					b.Cleanup(func() { _ = cache.Close() })
					rt, err := readthrough.New(cache, "ten", func(context.Context, string) (tenFields, error) { return tenFields{}, nil }, readthrough.String)
					require.NoError(b, err)
					rts = append(rts, rt)
				}
				ctx := context.Background()
				require.Eventually(b, func() bool {
					ready := true
					for _, rt := range rts {
						_, info, _ := rt.GetInfo(ctx, "1")
						ready = ready && info.Source == readthrough.SourceLocal
					}
					return ready
				}, time.Minute, 10*time.Millisecond)
				for range 3 {
					require.NoError(b, rts[0].Invalidate(ctx, "1"))
				}
				took := make([]time.Duration, 0, 1<<16)
				for b.Loop() {
					began := time.Now()
					_ = rts[0].Invalidate(ctx, "1")
					took = append(took, time.Since(began))
				}
				reportPercentiles(b, took)
			})
		}
	}
}

func reportPercentiles(b *testing.B, took []time.Duration) {
	slices.Sort(took)
	b.ReportMetric(float64(took[len(took)/2].Microseconds()), "us-p50")
	b.ReportMetric(float64(took[len(took)*99/100].Microseconds()), "us-p99")
}
