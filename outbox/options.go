package outbox

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// Option changes a setting of a relay. What is out of range is an error of NewRelay and Run.
type Option func(*settings) error

type settings struct {
	table     Table
	dialect   Dialect // zero: the database is asked
	batch     int
	poll      time.Duration
	firstWait time.Duration
	maxWait   time.Duration
	onEvent   func(Event)
	wakeUps   []func(ctx context.Context, wake func()) error
}

func newSettings(opts []Option) (settings, error) {
	s := settings{
		table: DefaultTable, batch: 100, poll: time.Second,
		firstWait: 100 * time.Millisecond, maxWait: 10 * time.Second,
	}
	for _, opt := range opts {
		if opt == nil {
			return s, errors.New("an option is nil")
		}
		if err := opt(&s); err != nil {
			return s, err
		}
	}
	return s, nil
}

// WithTable sets the table; the default is DefaultTable.
func WithTable(t Table) Option {
	return func(s *settings) error {
		s.table = t
		return t.check()
	}
}

// WithDialect sets the dialect. By default the database is asked for its version.
func WithDialect(d Dialect) Option {
	return func(s *settings) error {
		s.dialect = d
		if d == 0 || d >= dialects {
			return fmt.Errorf("WithDialect: there is no dialect %d", d)
		}
		return nil
	}
}

// WithBatchSize sets how many rows are claimed, handed to the cache and removed at a time. The
// default is 100, the most 1000.
func WithBatchSize(n int) Option {
	return func(s *settings) error {
		s.batch = n
		if n < 1 || n > 1000 {
			return fmt.Errorf("WithBatchSize: %d is not between 1 and 1000", n)
		}
		return nil
	}
}

// WithPollInterval sets how often the relay looks by itself, besides when it is woken. The default
// is 1 s, the least 1 ms. The pauses are shortened at random, by half at most, so that relays do not
// look all at once.
func WithPollInterval(d time.Duration) Option {
	return func(s *settings) error {
		s.poll = d
		if d < time.Millisecond {
			return fmt.Errorf("WithPollInterval: %s is less than 1 ms", d)
		}
		return nil
	}
}

// WithBackoff sets how long what has failed waits for its next attempt: about first [100 ms] after
// the first failure and twice as long after each further one, up to limit [10 s]. Each wait is
// shortened at random, by half at most (Marc Brooker, Exponential Backoff And Jitter, AWS 2015).
func WithBackoff(first, limit time.Duration) Option {
	return func(s *settings) error {
		s.firstWait, s.maxWait = first, limit
		if first < time.Millisecond || limit < first {
			return fmt.Errorf("WithBackoff: not 1 ms <= %s <= %s", first, limit)
		}
		return nil
	}
}

// WithOnEvent has f called for each Event, one at a time, on the goroutine of Run and on those of
// WithWakeUps. The relay waits for it. By default nobody is told, and only Stats tells of failures.
func WithOnEvent(f func(Event)) Option {
	return func(s *settings) error {
		s.onEvent = f
		if f == nil {
			return errors.New("WithOnEvent: the function is nil")
		}
		return nil
	}
}

// WithWakeUps has listen called beside the relay: it calls wake when rows have been committed,
// as a listener for notifications of the database learns, and returns when its ctx has ended. When
// it returns before, that is an EventError, and it is called again after a wait as WithBackoff sets it.
func WithWakeUps(listen func(ctx context.Context, wake func()) error) Option {
	return func(s *settings) error {
		s.wakeUps = append(s.wakeUps, listen)
		if listen == nil {
			return errors.New("WithWakeUps: the function is nil")
		}
		return nil
	}
}
