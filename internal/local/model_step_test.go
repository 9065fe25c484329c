package local

import (
	"slices"
)

// act is something that can happen.
type act struct {
	who  byte // 'p', 'w', 'r', or a space
	i    int
	what string
	do   func()
	rare bool
}

// acts returns what one actor, at random, can do now. A paused process or reader does nothing.
func (w *world) acts(all []act) []act {
	switch n := w.rng.IntN(20); {
	case n < 1:
		return w.actsOfRedis(all)
	case n < 9:
		if i := n % modelProcs; n < 5 || i == w.pausedProc {
			return w.actsOnWay(all, i)
		} else {
			return w.actsOfProc(all, i)
		}
	case n < 13:
		if i := n % modelWriters; i != 0 || w.pausedProc != 0 {
			return w.actsOfWriter(all, i)
		}
	default:
		if i := n % modelReaders; i != w.pausedReader && i%modelProcs != w.pausedProc {
			return w.actsOfReader(all, i)
		}
	}
	return all
}

// tick lets time pass: a little, or until just before or after something is over.
func (w *world) tick() {
	step := int64(1 + w.rng.IntN(modelLease/4))
	switch i := w.rng.IntN(modelProcs + modelWriters); {
	case w.rng.IntN(2) == 0:
	case i < modelProcs && w.procs[i].end > w.clock(i):
		step = (int64(w.procs[i].end)-1)*1000/modelRates[i] - w.now
	case i >= modelProcs && w.writers[i-modelProcs].pc == 5:
		rate := modelRates[0]
		if i > modelProcs {
			rate = modelRates[modelProcs]
		}
		step = int64(w.writers[i-modelProcs].fence.until)*1000/rate + 1 - w.now
	}
	w.now += max(step, 1)
}

func (w *world) actsOfRedis(all []act) []act {
	all = append(all, act{' ', 0, "time passes", w.tick, true})
	if w.table.there {
		all = append(all, act{' ', 0, "the table is lost", func() {
			if w.rng.IntN(5) == 0 {
				w.table.there, w.table.rows = false, nil
			}
		}, true})
	}
	for key := range w.entry {
		if w.entry[key] != 0 {
			all = append(all, act{' ', 0, "an entry is evicted", func() { w.entry[key] = 0 }, true})
		}
	}
	return all
}

// actsOfProc is what a process does.
func (w *world) actsOfProc(all []act, i int) []act {
	p := &w.procs[i]
	add := func(what string, rare bool, do func()) { all = append(all, act{'p', i, what, do, rare}) }
	if p.name == 0 {
		add("subscribes, and sends its join", false, func() {
			w.names++
			p.name = w.names
			p.onSubscribed()
			p.join = sent{pending: true, name: p.name, old: slices.Clone(p.mine)}
			p.mine = append(p.mine, p.name)
		})
		return all
	}
	if len(p.queue) > 0 {
		add("hears a message", false, func() { w.hear(i) })
	}
	if p.state == member && !p.renew.pending && p.end < w.clock(i)+modelLease/2 {
		add("sends a renewal", false, func() { p.renew = sent{pending: true, name: p.name, at: w.clock(i)} })
	}
	if p.state == member && !p.ack.pending {
		seq := p.seen
		if w.off == "drop" && len(p.queue) > 0 { // acknowledged when it comes, not when it was carried out
			seq = max(seq, p.queue[len(p.queue)-1].seq)
		}
		if r := w.table.find(p.name); r == nil || r.ack < seq {
			add("sends an acknowledgement", false, func() { p.ack = sent{pending: true, name: p.name, seq: seq} })
		}
	}
	add("loses its connection", true, func() {
		if w.rng.IntN(3) == 0 {
			w.lose(p)
		}
	})
	if p.deaf {
		add("notices that nothing comes", true, func() { w.lose(p) })
	}
	return all
}

// actsOnWay is what becomes of what a process has sent, and of what is sent to it.
func (w *world) actsOnWay(all []act, i int) []act {
	p := &w.procs[i]
	add := func(what string, rare bool, do func()) { all = append(all, act{'p', i, what, do, rare}) }
	if p.join.pending {
		add("its join is carried out", false, func() {
			p.join.pending = false
			w.ensure()
			before := w.table.least()
			for _, name := range p.join.old {
				w.table.remove(name)
			}
			w.table.rows = append(w.table.rows, row{name: p.join.name, ack: w.table.seq})
			w.publish(p.join.name, queued{message: message{kind: joined, seq: w.table.seq}})
			w.tell(before)
		})
	}
	if p.renew.pending {
		add("its renewal is carried out", false, func() { w.renew(i) })
	}
	if p.ack.pending {
		add("its acknowledgement is carried out", false, func() { w.acknowledge(i) })
	}
	if len(p.queue) > 0 {
		add("a message is lost", true, func() { p.queue = slices.Delete(slices.Clone(p.queue), 0, 1) })
		add("its connection is half open", true, func() { p.deaf, p.queue = true, nil })
	}
	return all
}

func (w *world) renew(i int) {
	p := &w.procs[i]
	p.renew.pending = false
	r := w.table.find(p.renew.name)
	switch {
	case w.off != "leave" && (!w.table.there || r == nil || r.marked):
		if p.name == p.renew.name {
			w.lose(p)
		}
	case w.off == "echo":
		p.end = max(p.end, p.renew.at+modelLease-margin(modelLease))
	default:
		w.publish(p.renew.name, queued{message: message{kind: echoed, seq: w.table.seq, sent: p.renew.at}})
	}
}

func (w *world) acknowledge(i int) {
	p := &w.procs[i]
	p.ack.pending = false
	r := w.table.find(p.ack.name)
	if r == nil || r.marked {
		if p.name == p.ack.name {
			w.lose(p)
		}
		return
	}
	before := w.table.least()
	r.ack = max(r.ack, p.ack.seq)
	w.tell(before)
}

// actsOfWriter is what a writer does: it writes a row and invalidates it.
func (w *world) actsOfWriter(all []act, i int) []act {
	x := &w.writers[i]
	add := func(what string, rare bool, do func()) { all = append(all, act{'w', i, what, do, rare}) }
	dropOwn := func() {
		if i == 0 && w.off != "own" {
			w.drop(&w.procs[0], x.key)
		}
	}
	switch x.pc {
	case 0:
		add("writes a row", true, func() {
			x.key = w.rng.IntN(modelKeys)
			w.row[x.key]++
			x.version, x.pc = w.row[x.key], 1
			if w.off == "own late" {
				dropOwn()
			}
		})
	case 1:
		add("deletes the entry", false, func() { w.entry[x.key], w.token[x.key], x.pc = 0, 0, 2 })
	case 2:
		add("drops its process's copies", false, func() {
			x.pc = 3
			if w.off != "own late" {
				dropOwn()
			}
		})
	case 3:
		add("has its fence carried out", false, func() { w.sendFence(i) })
	case 4:
		add("has the answer", false, func() {
			r, young := x.reply, x.young && w.off != "young"
			x.fence = newFence(r.seq, genText(int(r.gen)), young, int(r.others), w.clockOf(i), modelLease)
			if w.off == "margin" {
				x.fence.until -= margin(modelLease)
			}
			if x.young {
				w.removeLater(i, removal{gen: int(r.gen), young: true})
			}
			x.pc = 5
		})
	case 5:
		all = w.actsOfWait(all, i)
	}
	for j := range x.removals {
		r := &x.removals[j]
		if r.pending && w.clockOf(i) >= r.at {
			add("removes what was marked", false, func() { w.removeNow(r) })
		}
	}
	return all
}

func (w *world) sendFence(i int) {
	x := &w.writers[i]
	w.ensure()
	prev := w.table.seq
	w.table.seq++
	w.publish(0, queued{message{kind: fenced, prev: prev, seq: w.table.seq}, x.key})
	others := len(w.table.rows)
	if i == 0 && w.table.find(w.procs[0].name) != nil {
		others--
	}
	x.reply.seq, x.reply.gen, x.reply.others, x.young = w.table.seq, uint64(w.table.gen), uint64(others), w.table.young
	x.pc = 4
}

// actsOfWait is what a writer does that waits for its fence to pass.
func (w *world) actsOfWait(all []act, i int) []act {
	x := &w.writers[i]
	add := func(what string, rare bool, do func()) { all = append(all, act{'w', i, what, do, rare}) }
	if w.lastAck != x.news {
		add("hears news", false, func() { x.news = w.lastAck })
	}
	add("marks who is late", true, func() {
		if !w.table.there || genText(w.table.gen) != x.fence.gen {
			return
		}
		marked := removal{gen: w.table.gen}
		for j := range w.table.rows {
			if r := &w.table.rows[j]; r.ack < x.fence.seq {
				r.marked = true
				marked.names = append(marked.names, r.name)
			}
		}
		if w.off == "mark" {
			w.removeNow(&marked)
		} else if len(marked.names) > 0 {
			w.removeLater(i, marked)
		}
	})
	said := x.news
	if w.off == "gen" {
		said.gen = x.fence.gen
	}
	if now := w.clockOf(i); x.fence.passed(said, now) || w.off == "wait" {
		add("returns", false, func() {
			if now < x.fence.until {
				w.acked++
			} else {
				w.waited++
			}
			w.floor[x.key] = max(w.floor[x.key], x.version)
			x.pc = 0
		})
	}
	return all
}

func (w *world) removeLater(i int, r removal) {
	x := &w.writers[i]
	for j := range x.removals {
		if !x.removals[j].pending {
			r.pending, r.at = true, w.clockOf(i)+outlast(modelLease)
			x.removals[j] = r
			return
		}
	}
}

func (w *world) removeNow(r *removal) {
	r.pending = false
	if !w.table.there || w.table.gen != r.gen {
		return
	}
	before := w.table.least()
	for _, name := range r.names {
		w.table.remove(name)
	}
	w.table.young = w.table.young && !r.young
	w.tell(before)
}

// actsOfReader is what a Get does.
func (w *world) actsOfReader(all []act, i int) []act {
	r, at := &w.readers[i], i%modelProcs
	p := &w.procs[at]
	add := func(what string, do func()) { all = append(all, act{'r', i, what, do, false}) }
	give := func(version int) {
		if version < r.floor {
			w.violation("reader %d of key %d returns version %d, but %d was invalidated before it began", i, r.key, version, r.floor)
		}
		*r = modelReader{}
	}
	switch r.pc {
	case 0:
		add("begins", func() {
			r.key = w.rng.IntN(modelKeys)
			r.floor, r.now, r.pc = w.floor[r.key], w.clock(at), 1
			if w.off == "order" {
				r.found = p.copies[r.key]
			}
		})
	case 1:
		add("looks at the lease", func() {
			now := r.now
			if w.off == "order" {
				now = w.clock(at)
			}
			if r.pc = 3; holds(now, p.end) {
				r.pc = 2
			}
		})
	case 2:
		add("looks at the copy", func() {
			if w.off != "order" {
				r.found = p.copies[r.key]
			}
			if r.pc = 3; r.found != 0 {
				w.hits++
				give(r.found - 1)
			}
		})
	case 3:
		add("notes the guard", func() { r.noted, r.pc = p.guards[r.key], 4 })
	default:
		all = w.actsOfMiss(all, i, give)
	}
	return all
}

// actsOfMiss is what a Get does that asks Redis.
func (w *world) actsOfMiss(all []act, i int, give func(version int)) []act {
	r := &w.readers[i]
	p := &w.procs[i%modelProcs]
	add := func(what string, do func()) { all = append(all, act{'r', i, what, do, false}) }
	switch r.pc {
	case 4:
		add("asks Redis", func() {
			if r.found, r.pc = w.entry[r.key], 6; r.found == 0 {
				// The fill lease, whoever has it, is checked elsewhere.
				w.token[r.key] = w.row[r.key] + 1
				r.found, r.pc = w.token[r.key], 5
			}
		})
	case 5:
		add("fills", func() {
			if w.token[r.key] != r.found {
				give(r.found - 1)
				return
			}
			w.entry[r.key], w.token[r.key], r.pc = r.found, 0, 6
		})
	case 6:
		add("keeps a copy", func() {
			if r.noted.keeps(p.guards[r.key]) || w.off == "guard" {
				p.copies[r.key] = r.found
			}
			give(r.found - 1)
		})
	}
	return all
}
