package measure

import (
	"math/bits"
	"time"
)

// Histogram counts durations in buckets that are at most 1/32 wide, so that a
// goroutine can record each of its calls without allocating. It is not safe for
// concurrent use: each goroutine has one, and they are merged.
type Histogram struct {
	counts [buckets]uint32
	total  uint64
	max    time.Duration
}

const (
	subBits = 5 // 32 buckets for each doubling
	buckets = (64 - subBits) << subBits
)

// Record counts d.
func (h *Histogram) Record(d time.Duration) {
	h.counts[bucketOf(max(d, 0))]++
	h.total++
	h.max = max(h.max, d)
}

// Merge adds what other has counted.
func (h *Histogram) Merge(other *Histogram) {
	for i, n := range other.counts {
		h.counts[i] += n
	}
	h.total += other.total
	h.max = max(h.max, other.max)
}

// Quantile is the duration that the share q of those recorded did not exceed, to
// within 1/32; zero if nothing was recorded.
func (h *Histogram) Quantile(q float64) time.Duration {
	rank, seen := q*float64(h.total), uint64(0)
	for i, n := range h.counts {
		seen += uint64(n)
		if n > 0 && float64(seen) >= rank {
			return min(topOf(i), h.max)
		}
	}
	return h.max
}

// Max is the longest duration recorded.
func (h *Histogram) Max() time.Duration { return h.max }

// bucketOf keeps the leading subBits+1 bits of d: the exponent chooses a row of
// buckets, the bits behind the leading one the bucket.
func bucketOf(d time.Duration) int {
	exponent := bits.Len64(uint64(d)>>subBits) - 1
	if exponent < 0 {
		return int(d) // less than 32 ns: exact
	}
	return (exponent+1)<<subBits | int(uint64(d)>>exponent)&(1<<subBits-1)
}

// topOf is the longest duration in a bucket.
func topOf(bucket int) time.Duration {
	row, column := bucket>>subBits, uint64(bucket&(1<<subBits-1))
	if row == 0 {
		return time.Duration(column)
	}
	exponent := row - 1
	return time.Duration((1<<subBits|column)+1)<<exponent - 1
}
