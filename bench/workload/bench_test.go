package workload

import (
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/readthrough-go/readthrough/bench/measure"
	"github.com/readthrough-go/readthrough/bench/peers"
	"github.com/readthrough-go/readthrough/internal/redistest"
)

// BenchmarkHit reads the struct of ten fields: -bench 'Hit/128/readthrough'.
func BenchmarkHit(b *testing.B) {
	for _, goroutines := range []int{1, 128} {
		for _, name := range readers {
			b.Run(fmt.Sprintf("%d/%s", goroutines, name), func(b *testing.B) {
				benchmark(b, goroutines, name, loadBook)
			})
		}
	}
}

// BenchmarkLarge reads 64 KiB.
func BenchmarkLarge(b *testing.B) {
	for _, name := range readers {
		b.Run(name, func(b *testing.B) { benchmark(b, 1, name, loadBlob) })
	}
}

// BenchmarkMiss reads keys that nobody has read before.
func BenchmarkMiss(b *testing.B) {
	for _, goroutines := range []int{1, 128} {
		for _, name := range readers {
			b.Run(fmt.Sprintf("%d/%s", goroutines, name), func(b *testing.B) {
				peer, err := peers.All[Book]()[name](redistest.Start(b).Addr(), loadBook)
				require.NoError(b, err)
				defer peer.Close() // it has served all its calls
				op := missOp(peer, keysOf(name, 1)[0])
				b.ReportAllocs()
				b.ResetTimer()
				loop(b, goroutines, op)
			})
		}
	}
}

func benchmark[V value](b *testing.B, goroutines int, name string, load peers.Loader[V]) {
	peer, err := peers.All[V]()[name](redistest.Start(b).Addr(), load)
	require.NoError(b, err)
	defer peer.Close() // it has served all its calls
	op, err := hitOp(peer, keysOf(name, 100))
	require.NoError(b, err)
	b.ReportAllocs()
	b.ResetTimer()
	loop(b, goroutines, op)
}

// loop has the goroutines share b.N operations.
func loop(b *testing.B, goroutines int, op measure.Op) {
	errs := make(chan error, goroutines)
	for g := range goroutines {
		go func() { // ends with its share, and is awaited below
			random := rand.New(rand.NewPCG(uint64(g), 1))
			for i := g; i < b.N; i += goroutines {
				if err := op(b.Context(), random); err != nil {
					errs <- err
					return
				}
			}
			errs <- nil
		}()
	}
	for range goroutines {
		require.NoError(b, <-errs)
	}
}
