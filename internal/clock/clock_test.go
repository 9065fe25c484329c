package clock_test

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/readthrough-go/readthrough/internal/clock"
)

// TestClock_RunsAheadOfTheMachines holds that a Clock that was moved goes on running.
func TestClock_RunsAheadOfTheMachines(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var machine *clock.Clock
		moved := new(clock.Clock)
		require.Equal(t, time.Now(), machine.Now())
		require.Equal(t, time.Now(), moved.Now())
		deadline := time.Now().Add(time.Hour)

		moved.Advance(40 * time.Minute)
		moved.Advance(5 * time.Minute)
		time.Sleep(5 * time.Minute)

		require.Equal(t, time.Now(), machine.Now())
		require.Equal(t, 55*time.Minute, machine.Until(deadline))
		require.Equal(t, 10*time.Minute, moved.Until(deadline))
	})
}
