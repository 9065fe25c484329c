package redistest_test

import (
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/readthrough-go/readthrough/internal/redistest"
)

func TestSentinel_FailsOverAndClientFollows(t *testing.T) {
	t.Parallel()
	began := time.Now()
	sentinel := redistest.StartSentinel(t)
	t.Logf("started in %s", time.Since(began))
	old := sentinel.Master()
	c := sentinel.Client()
	require.NoError(t, c.Set(within(t, soon), "k", "before", 0).Err())

	began = time.Now()
	sentinel.Failover()
	t.Logf("failed over in %s", time.Since(began))

	master := sentinel.Master()
	require.NotEqual(t, old.Addr(), master.Addr())
	assert.Zero(t, old.PID())
	require.Eventually(t, func() bool {
		return c.Set(within(t, time.Second), "k", "after", 0).Err() == nil
	}, soon, brief)
	got, err := master.Client().Get(t.Context(), "k").Result()
	require.NoError(t, err)
	assert.Equal(t, "after", got)

	t.Run("and back, when the killed server is there again", func(t *testing.T) {
		old.Restart()
		sentinel.Failover()
		assert.Equal(t, old.Addr(), sentinel.Master().Addr())
		got, err := old.Client().Get(t.Context(), "k").Result()
		require.NoError(t, err)
		assert.Equal(t, "after", got)
	})
}

func TestSentinel_NamesSentinelsAndMasterInURL(t *testing.T) {
	t.Parallel()
	sentinel := redistest.StartSentinel(t)

	require.Len(t, sentinel.Addrs(), 3)
	assert.Equal(t,
		"redis-sentinel://"+strings.Join(sentinel.Addrs(), ",")+"/0?master="+sentinel.MasterName(), sentinel.URL())
}
