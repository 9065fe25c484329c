package workload

import (
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/readthrough-go/readthrough/bench/peers"
)

func TestNoReaderGetsTheOldRowFromReadthrough(t *testing.T) {
	races, err := racesOf(&Env{TB: t, Scale: Quick}, peers.Readthrough)
	require.NoError(t, err)
	assert.Equal(t, Races{LateFill: Fresh, LateJoin: Fresh, Warm: Fresh}, races)
}

// The races are really lost: whoever stores what it has loaded, whatever happened
// meanwhile, serves the old row from then on.
func TestPeersLoseTheRace(t *testing.T) {
	for name, want := range map[string]Races{
		peers.Raw:          {LateFill: StaleForTTL, LateJoin: Fresh, Warm: Fresh},
		peers.GoRedisCache: {LateFill: StaleForTTL, LateJoin: StaleOnce, Warm: Fresh},
	} {
		races, err := racesOf(&Env{TB: t, Scale: Quick}, name)
		require.NoError(t, err)
		assert.Equal(t, want, races, name)
	}
}

func TestLostRaceTellsOfAllPeers(t *testing.T) {
	s := quick(t, LostRace)
	assert.Len(t, s.Tables[0].Rows, len(racers))
	require.Len(t, s.Targets, 1)
	assert.True(t, s.Targets[0].Holds)
}
