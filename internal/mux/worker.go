package mux

import (
	"context"
	"sync"
)

// worker is a goroutine that makes one round trip after the other. It keeps its stack, grown to
// what go-redis needs, from one to the next.
type worker struct {
	pipelines chan *pipeline // has room for one, so that handing a pipeline over never blocks
	// ctx is the parent of the contexts of all the worker's round trips, so that none needs to make
	// one that can be cancelled. It is cancelled when a round trip times out; then the worker ends.
	ctx    context.Context
	cancel context.CancelFunc
}

// workerPool keeps workers between round trips.
type workerPool struct {
	idle  []*worker      // guarded by node.mu
	alive sync.WaitGroup // of all workers, idle ones included, and of callers that send in person
}

// acquireWorker returns an idle worker, or a new one. n.mu is held.
func (n *node) acquireWorker() *worker {
	if i := len(n.workers.idle); i > 0 {
		// The last to become idle is the one whose caches are warm.
		wk := n.workers.idle[i-1]
		n.workers.idle = n.workers.idle[:i-1]
		return wk
	}
	wk := &worker{pipelines: make(chan *pipeline, 1)}
	wk.ctx, wk.cancel = context.WithCancel(context.Background())
	n.workers.alive.Add(1)
	go n.work(wk) // ends when finish does not keep wk, or at Close, which waits for it
	return wk
}

// keepIdle keeps wk for another pipeline, and reports whether it did: a closed Mux needs no
// workers, and an open one no more than it has slots. node.mu is held.
func (p *workerPool) keepIdle(wk *worker, closed bool) bool {
	if closed || len(p.idle) >= MaxPipelines {
		return false
	}
	p.idle = append(p.idle, wk)
	return true
}

// dismissIdle ends the workers that have nothing to do. node.mu is held.
func (p *workerPool) dismissIdle() {
	for _, wk := range p.idle {
		close(wk.pipelines)
	}
	p.idle = nil
}

// work makes the round trips of the pipelines that wk is handed and, after each, of those that
// finish takes from the queue.
func (n *node) work(wk *worker) {
	defer n.workers.alive.Done()
	defer wk.cancel()
	for p := range wk.pipelines {
		for p != nil {
			p.exec(n, 0)
			var keep bool
			if p, keep = n.finish(p); !keep {
				return
			}
		}
	}
}
