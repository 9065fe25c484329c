package local

import (
	"context"
	"errors"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"time"
)

// fenceKeys is how many keys one fence tells of at most.
const fenceKeys = 1000

// youth is the name by which remove ends the youth of a table.
const youth = "young"

// patience is the share of a lease after which a member without an acknowledgement is marked.
const patience = 10

// fences is what the writers of a process wait for.
type fences struct {
	members atomic.Int64 // others, as the last fence found them

	mu       sync.Mutex
	news     news
	changed  chan struct{}   // closed when news come
	removing map[string]bool // members, with their table, that are going to be removed
}

func (f *fences) init() { f.changed, f.removing = make(chan struct{}), make(map[string]bool) }

// hear takes news of a table.
func (f *fences) hear(n news) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if n.gen == f.news.gen && n.min <= f.news.min {
		return
	}
	f.news = n
	close(f.changed)
	f.changed = make(chan struct{})
}

// latest returns the last news, and what is closed when others come.
func (f *fences) latest() (news, <-chan struct{}) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.news, f.changed
}

// Fence tells the other processes to drop their copies of Redis keys whose entries were changed
// before, and Drop called. With wait, and if Config says so, it returns when no process serves a
// copy of before any more. The error says that this may not be so. Where Redis refuses fences,
// which Config.Note is told once, there are none.
func (t *Tier) Fence(ctx context.Context, wait bool, keys ...string) error {
	if len(keys) == 0 || !t.used.Load() {
		return nil
	}
	wait = wait && t.config.Wait
	t.Start()
	if wait { // to miss the news would cost a lease
		t.listening.wait(ctx, t.config.Lease/patience)
	}
	began := t.now()
	f, lease, err := t.sendFence(ctx, wait, keys)
	if t.tellRefused(err) {
		return nil
	}
	waited := false
	if err == nil && wait {
		waited, err = t.await(ctx, f, lease)
	}
	if err != nil {
		return err
	}
	took := t.now() - began
	t.config.Note(Fenced, took, nil)
	if waited {
		t.config.Note(Waited, took, nil)
	}
	return nil
}

// sendFence numbers and publishes the keys, and returns the last fence and the lease of the table.
func (t *Tier) sendFence(ctx context.Context, wait bool, keys []string) (Fence, time.Duration, error) {
	t.mu.Lock()
	name := t.name
	t.mu.Unlock()
	mark := "-"
	if wait {
		mark = awaitedMark
	}
	var calls [][]any
	for some := range slices.Chunk(keys, fenceKeys) {
		calls = append(calls, []any{name, newName(), t.config.Lease.Microseconds(), t.names.fences, mark, packKeys(some)})
	}
	replies, err := t.runAll(ctx, fence, calls)
	if err != nil {
		return Fence{}, 0, err
	}
	answer := listOf(replies[len(replies)-1])
	if len(answer) != 5 {
		return Fence{}, 0, errMessage
	}
	seq, err1 := strconv.ParseUint(answer[0], 10, 64)
	micros, err2 := strconv.ParseInt(answer[3], 10, 64)
	others, err3 := strconv.Atoi(answer[4])
	if err := errors.Join(err1, err2, err3); err != nil {
		return Fence{}, 0, err
	}
	t.fences.members.Store(int64(others))
	gen, young := answer[1], answer[2] != ""
	lease := time.Duration(micros) * time.Microsecond
	if young {
		t.removeLater(gen, lease, youth)
	}
	return newFence(seq, gen, young, others, t.now(), lease), lease, nil
}

// await returns when f has passed, and whether it took the end of the leases. Members that are
// silent for too long are marked meanwhile.
func (t *Tier) await(ctx context.Context, f Fence, lease time.Duration) (waited bool, err error) {
	late := time.NewTimer(lease / patience)
	defer late.Stop()
	over := time.NewTimer(f.until - t.now())
	defer over.Stop()
	for {
		news, changed := t.fences.latest()
		if now := t.now(); f.passed(news, now) {
			return now >= f.until, nil
		}
		select {
		case <-changed:
		case <-over.C:
		case <-late.C:
			t.spawn(func(ctx context.Context) { t.markLate(ctx, f, lease) })
		case <-ctx.Done():
			return false, ctx.Err()
		case <-t.work.ctx.Done():
			return false, errClosed
		}
	}
}

var errClosed = errors.New("closed")

// markLate marks the members that have not acknowledged f, and removes them when their leases are
// over. If they have, and only the news was lost, it is brought here.
func (t *Tier) markLate(ctx context.Context, f Fence, lease time.Duration) {
	reply, err := t.run(ctx, mark, f.gen, f.seq)
	answer := listOf(reply)
	if err != nil || len(answer) == 0 {
		return // the next one will do it
	}
	if min, err := strconv.ParseUint(answer[0], 10, 64); err == nil && min > 0 {
		t.fences.hear(news{min, f.gen})
	}
	t.removeLater(f.gen, lease, answer[1:]...)
}

// removeLater removes marked members from the table of gen, or its youth, when the leases that they
// may hold, of lease, are over.
func (t *Tier) removeLater(gen string, lease time.Duration, names ...string) {
	args := []any{gen, t.names.acks}
	t.fences.mu.Lock()
	for _, name := range names {
		if !t.fences.removing[gen+name] {
			t.fences.removing[gen+name] = true
			args = append(args, name)
		}
	}
	t.fences.mu.Unlock()
	if len(args) == 2 {
		return
	}
	t.spawn(func(ctx context.Context) {
		select {
		case <-time.After(outlast(lease)):
			_, _ = t.run(ctx, remove, args...) // else the next writer does it
		case <-ctx.Done():
		}
		t.fences.mu.Lock()
		defer t.fences.mu.Unlock()
		for _, name := range args[2:] {
			delete(t.fences.removing, gen+name.(string))
		}
	})
}
