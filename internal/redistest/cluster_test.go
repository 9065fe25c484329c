package redistest_test

import (
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/readthrough-go/readthrough/internal/redistest"
)

func TestCluster_AnswersForEverySlotAndFailsOver(t *testing.T) {
	t.Parallel()
	began := time.Now()
	cluster := redistest.StartCluster(t, 3, 1)
	t.Logf("started in %s", time.Since(began))
	require.Len(t, cluster.Nodes(), 6)
	require.Len(t, cluster.Masters(), 3)
	keys := keyPerSlot()

	t.Run("answers for every slot", func(t *testing.T) {
		c := cluster.Client()
		_, err := c.Pipelined(t.Context(), func(p redis.Pipeliner) error {
			for slot, key := range keys {
				p.Set(t.Context(), key, slot, 0)
			}
			return nil
		})
		require.NoError(t, err)
		for i, master := range cluster.Masters() {
			held, err := master.Client().DBSize(t.Context()).Result()
			require.NoError(t, err)
			assert.InDelta(t, len(keys)/3, held, 1, "master %d", i)
		}
	})

	t.Run("replicates", func(t *testing.T) {
		for i, replica := range cluster.Nodes()[3:] {
			want := cluster.Masters()[i].Client().DBSize(t.Context()).Val()
			c := replica.Client()
			require.Eventually(t, func() bool { return c.DBSize(t.Context()).Val() == want }, soon, brief)
		}
	})

	t.Run("names its nodes in the URL", func(t *testing.T) {
		hosts, ok := strings.CutPrefix(cluster.URL(), "redis-cluster://")
		require.True(t, ok)
		assert.Equal(t, cluster.Addrs(), strings.Split(hosts, ","))
	})

	t.Run("replica takes over from killed master", func(t *testing.T) {
		key := keys[0] // of the first master, by the order of slots
		c := cluster.Client(func(o *redis.ClusterOptions) {
			// A refused connection does not make go-redis ask again who serves the slot: that is due every 60 s.
			o.ClusterStateReloadInterval = brief
			o.DialerRetries = 1
		})
		cluster.Masters()[0].Kill()
		require.Eventually(t, func() bool {
			return c.Set(within(t, time.Second), key, "after", 0).Err() == nil
		}, 2*soon, brief)
		got, err := cluster.Nodes()[3].Client().Get(t.Context(), key).Result()
		require.NoError(t, err)
		assert.Equal(t, "after", got)
	})
}

func TestCluster_OfOneNodeServesAllSlots(t *testing.T) {
	t.Parallel()
	c := redistest.StartCluster(t, 1, 0).Client()

	assert.NoError(t, c.Set(t.Context(), "k", "v", 0).Err())
}

func TestCluster_EndsWithItsTest(t *testing.T) {
	t.Parallel()
	needRedis(t)
	var pids []int
	record(t, func(tb redistest.TB) {
		for _, s := range redistest.StartCluster(tb, 2, 0).Nodes() {
			pids = append(pids, s.PID())
		}
	})
	require.Len(t, pids, 2)
	for _, pid := range pids {
		requireGone(t, pid)
	}
}

// keyPerSlot finds a key for each slot, by trying.
func keyPerSlot() []string {
	keys := make([]string, 16384)
	for n, missing := 0, len(keys); missing > 0; n++ {
		key := strconv.Itoa(n)
		if slot := crc16(key) % 16384; keys[slot] == "" {
			keys[slot] = key
			missing--
		}
	}
	return keys
}

// crc16 is the checksum that Redis Cluster hashes keys with (XMODEM: polynomial 0x1021, from zero).
func crc16(key string) uint16 {
	var crc uint16
	for _, b := range []byte(key) {
		crc ^= uint16(b) << 8
		for range 8 {
			carry := crc&0x8000 != 0
			crc <<= 1
			if carry {
				crc ^= 0x1021
			}
		}
	}
	return crc
}
