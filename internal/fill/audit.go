package fill

import (
	"context"
	"time"
)

// Audit asks the loader for a key whose entry was served, in the background, and gives verdict what it
// returned. It does nothing while the key is being audited, or too many refreshes or loads are under
// way. What the loader panics with is dropped.
func (e *Engine[K, V]) Audit(ctx context.Context, read Stale[K], verdict func(v V, err error)) {
	ctx, cancel := context.WithTimeoutCause(context.WithoutCancel(ctx), e.settings.LoadTimeout, ErrTimeout)
	if _, busy := e.audits.LoadOrStore(read.Key, cancel); busy {
		cancel()
		return
	}
	if !e.refreshes.tryAcquire() {
		e.audits.Delete(read.Key)
		cancel()
		return
	}
	e.wrapper.Go(func() { // ends with the load, which the load timeout bounds, and the verdict
		defer cancel()
		defer e.audits.Delete(read.Key)
		defer e.refreshes.release()
		defer func() { _ = recover() }()
		if e.wrapper.Same(read.K, read.Key) && e.loads.tryAcquire() {
			v, err := e.loadToAudit(ctx, read)
			verdict(v, err)
		}
	})
}

// loadToAudit calls the loader in a slot that was taken for it.
func (e *Engine[K, V]) loadToAudit(ctx context.Context, read Stale[K]) (v V, err error) {
	defer e.loads.release()
	began := time.Now()
	v, err = e.wrapper.Load(ctx, read.K)
	e.wrapper.Note(ctx, LoadEnded, read.Key, time.Since(began), err)
	return v, err
}
