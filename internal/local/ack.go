package local

import "context"

// acknowledge tells Redis which fences were processed, until ctx ends or Redis does not know the
// member any more. One acknowledgement is under way at a time, and stands for all fences before it:
// so those of a busy fleet are few.
func (t *Tier) acknowledge(ctx context.Context) error {
	for {
		select {
		case <-t.ackDue:
		case <-ctx.Done():
			return ctx.Err()
		}
		t.mu.Lock()
		name, seen, state := t.name, t.protocol.seen, t.protocol.state
		t.mu.Unlock()
		if state != member {
			continue
		}
		reply, err := t.run(ctx, ack, name, seen, t.names.acks)
		switch {
		case isRefusal(err):
			return err
		case err == nil && reply == int64(0):
			return errRefused
		case err != nil && ctx.Err() == nil:
			nudge(t.ackDue) // once more: the Doer's budget bounds the pace
		}
	}
}
