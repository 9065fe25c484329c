package redistest

import (
	"errors"
	"fmt"
	"time"
)

// pollEvery is the pause between two looks at a state that announces no change.
const pollEvery = 5 * time.Millisecond

// errHopeless, wrapped in what a look returns, ends a poll early: the state can't come any more.
var errHopeless = errors.New("gave up")

// poll looks until a look returns nil, and returns the last look's error when that did not happen within the limit.
func poll(limit time.Duration, look func() error) error {
	deadline := time.Now().Add(limit)
	for {
		err := look()
		switch {
		case err == nil:
			return nil
		case errors.Is(err, errHopeless):
			return err
		case time.Now().After(deadline):
			return fmt.Errorf("not within %s: %w", limit, err)
		}
		time.Sleep(pollEvery)
	}
}
