package local

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/readthrough-go/readthrough/internal/lua"
)

// listener is the connection on which a process hears of fences, and of its own lease.
type listener struct {
	// Guarded by Tier.mu:
	protocol protocol
	name     string // of the member, or of the one to be: another on each connection
	mine     []any  // names that may be in the table
	wants    bool   // there are copies to keep, so the process is to become a member
	retired  bool   // and will not any more
	ready    bool   // the lease was renewed since it was lost
	refused  error  // of the last attempt to listen, if Redis refuses it

	kick      chan struct{} // has room for one: the pulse is due
	ackDue    chan struct{} // has room for one: a fence was processed
	listening *signal       // a connection listens
}

func (l *listener) init() {
	l.kick, l.ackDue, l.listening = make(chan struct{}, 1), make(chan struct{}, 1), newSignal()
}

var (
	errGap     = errors.New("a fence was lost on the way")
	errRefused = errors.New("redis does not know this member any more")
	errSilent  = errors.New("the join was not heard of")
)

// join has the process become a member on its next pulse.
func (t *Tier) join() {
	t.mu.Lock()
	t.wants = !t.retired
	t.mu.Unlock()
	nudge(t.kick)
}

// nudge fills a channel that has room for one.
func nudge(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// pulses is how often a lease is renewed in its time.
const pulses = 4

// listen listens on one connection after the other, until ctx ends. After any error, whatever it
// is, messages may be missing: the copies are flushed, and the process joins anew.
func (t *Tier) listen(ctx context.Context) {
	pause := t.config.Lease / 64
	for ctx.Err() == nil {
		began := t.now()
		err := t.listenOnce(ctx)
		t.lose(err)
		pause = min(2*pause, t.config.Lease)
		t.tellRefused(err)
		switch {
		case isRefusal(err):
			pause = lua.RefusedFor
		case t.now()-began > t.config.Lease:
			pause = t.config.Lease / 64
		}
		select {
		case <-time.After(pause):
		case <-ctx.Done():
		}
	}
}

// lose gives the lease up, for err.
func (t *Tier) lose(err error) {
	t.mu.Lock()
	ready := t.ready
	t.ready = false
	t.protocol.onLoss()
	t.flush()
	t.mu.Unlock()
	if ready {
		t.config.Note(Lost, 0, err)
	}
}

// otherLeaseError is why a process cannot become a member.
type otherLeaseError struct {
	theirs string // in microseconds
	ours   int64
}

func (e *otherLeaseError) Error() string {
	return fmt.Sprintf("the lease is %dus, but the other processes have one of %sus", e.ours, e.theirs)
}

// tellRefused reports whether err is a refusal, which it tells of once.
func (t *Tier) tellRefused(err error) bool {
	var other *otherLeaseError
	refused := isRefusal(err) || errors.As(err, &other)
	t.mu.Lock()
	tell := refused && t.refused == nil
	if refused {
		t.refused = err
	}
	t.mu.Unlock()
	switch {
	case tell && other != nil:
		t.config.Note(Lost, 0, err)
	case tell:
		t.config.Note(Refused, 0, err)
	}
	return refused
}

// listenOnce listens on one connection, and returns why that has ended.
func (t *Tier) listenOnce(ctx context.Context) error {
	ctx, end := context.WithCancelCause(ctx)
	t.mu.Lock()
	t.name = newName()
	channels := []string{t.names.fences, t.names.of(t.name)}
	t.mu.Unlock()
	if t.config.Wait {
		channels = append(channels, t.names.acks)
	}
	conn := t.config.Subscribe(ctx, channels...)
	defer context.AfterFunc(ctx, func() { _ = conn.Close() })()
	var helpers sync.WaitGroup
	defer helpers.Wait()
	defer end(nil) // which closes the connection
	for left := len(channels); left > 0; {
		received, err := conn.ReceiveTimeout(ctx, t.config.Lease)
		if err != nil {
			return causeOf(ctx, err)
		}
		if _, ok := received.(*redis.Subscription); ok { // what others say before the join is not missed
			left--
		}
	}
	t.listening.set(true)
	defer t.listening.set(false)
	helpers.Go(func() { end(t.pulse(ctx, conn)) }) // end with ctx
	helpers.Go(func() { end(t.acknowledge(ctx)) })
	for {
		received, err := conn.ReceiveTimeout(ctx, t.config.Lease/2)
		if m, ok := received.(*redis.Message); ok && err == nil {
			err = t.hear(m)
		}
		if err != nil {
			return causeOf(ctx, err)
		}
	}
}

// causeOf returns why ctx has ended, or else err.
func causeOf(ctx context.Context, err error) error {
	if cause := context.Cause(ctx); cause != nil {
		return cause
	}
	return err
}

// hear carries out what a message asks for.
func (t *Tier) hear(received *redis.Message) error {
	if strings.HasPrefix(received.Payload, ackPrefix) {
		news, err := parseNews(received.Payload)
		t.fences.hear(news)
		return err
	}
	m, awaited, keys, err := parse(received.Payload)
	if err != nil {
		return err
	}
	t.mu.Lock()
	before := t.ready
	switch t.protocol.onMessage(m, t.config.Lease) {
	case flush:
		t.flush()
		t.mine = []any{t.name}
		nudge(t.kick)
	case drop:
		if !unpackKeys(keys, func(key string) { t.drop(key) }) {
			err = errMessage
		}
		if awaited { // else a later acknowledgement will do
			nudge(t.ackDue) // which waits for mu
		}
	case serve:
		t.end.Store(int64(t.protocol.end))
		t.ready, t.refused = true, nil
	case leave:
		err = errGap
	case skip:
	}
	ready := t.ready && !before
	t.mu.Unlock()
	if ready {
		t.config.Note(Ready, 0, nil)
	}
	return err
}

// pulse joins the table and then renews the lease, or keeps the connection of a process without
// copies from falling silent, until ctx ends or something fails.
func (t *Tier) pulse(ctx context.Context, conn *redis.PubSub) error {
	ticker := time.NewTicker(t.config.Lease / pulses)
	defer ticker.Stop()
	for since := t.now(); ; {
		t.mu.Lock()
		state, wants, name := t.protocol.state, t.wants, t.name
		t.mu.Unlock()
		var err error
		switch {
		case !wants:
			err = conn.Ping(ctx)
		case state == out:
			since = t.now()
			err = t.sendJoin(ctx)
		case state == member:
			err = t.renew(ctx, name)
		case t.now()-since > t.config.Lease:
			err = errSilent
		}
		if err != nil {
			return err
		}
		select {
		case <-ticker.C:
		case <-t.kick:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// sendJoin has Redis put the process into the table, in the place of what it was there before.
func (t *Tier) sendJoin(ctx context.Context) error {
	t.mu.Lock()
	if t.retired {
		t.mu.Unlock()
		return nil
	}
	name, old := t.name, t.mine
	// Noted before it is sent: if the answer is lost, the name may be in the table all the same.
	t.mine = append(old[:len(old):len(old)], name)
	t.protocol.onSubscribed()
	t.mu.Unlock()
	lease := t.config.Lease.Microseconds()
	reply, err := t.run(ctx, join, append([]any{name, newName(), lease, t.names.of(name), t.names.acks}, old...)...)
	if err != nil {
		return err
	}
	answer := listOf(reply)
	if len(answer) != 2 {
		return errMessage
	}
	if t.isRetired() { // meanwhile
		_, err = t.run(ctx, remove, "", t.names.acks, name)
		return err
	}
	if answer[0] == "other" {
		return &otherLeaseError{answer[1], lease}
	}
	if answer[1] != "" {
		t.removeLater(answer[0], t.config.Lease, youth)
	}
	return nil
}

func (t *Tier) isRetired() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.retired
}

// renew asks for the echo that renews the lease. That it does not get through is no error: the
// lease ends by itself.
func (t *Tier) renew(ctx context.Context, name string) error {
	sent := t.now()
	reply, err := t.run(ctx, renew, name, int64(sent), t.names.of(name))
	switch {
	case isRefusal(err):
		return err
	case err == nil && reply == int64(0):
		return errRefused
	}
	return nil
}
