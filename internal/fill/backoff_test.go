package fill

import (
	"strconv"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestBackoff_ForgetsOneKeyAtATimeWhenFull(t *testing.T) {
	t.Parallel()
	var b backoff
	paused := func(keys int) (n int) {
		for i := range keys {
			if !b.allows(strconv.Itoa(i)) {
				n++
			}
		}
		return n
	}
	for i := range maxBackoffs + 50 {
		b.failed(strconv.Itoa(i), time.Hour)
	}
	require.Equal(t, maxBackoffs, paused(maxBackoffs+50))
	require.False(t, b.allows(strconv.Itoa(maxBackoffs+49)), "the newest is never the one to go")
	b.failed(strconv.Itoa(maxBackoffs+49), time.Hour)
	require.Equal(t, maxBackoffs, paused(maxBackoffs+50), "a key that is known takes no room")
	b.forget(strconv.Itoa(maxBackoffs + 49))
	require.Equal(t, maxBackoffs-1, paused(maxBackoffs+50))
}
