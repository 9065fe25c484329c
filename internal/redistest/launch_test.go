package redistest

import (
	"testing"

	"github.com/stretchr/testify/assert"
)

// The worst thief of a port is another redis-server, as every test starts them: it answers in the place of ours.
func TestLaunch_TriesAnotherPortWhenAnotherServerTookIt(t *testing.T) {
	t.Parallel()
	thief := Start(t)
	attempts := 0

	s := launchAll(t, 1, func(s *Server) error {
		if attempts++; attempts == 1 {
			s.port = thief.port
		}
		return standalone()(s)
	})[0]

	assert.Equal(t, 2, attempts)
	assert.NotEqual(t, thief.Addr(), s.Addr())
	assert.NoError(t, s.answersAs(s.PID()))
	assert.ErrorContains(t, s.answersAs(thief.PID()), "answers, not process")
}
