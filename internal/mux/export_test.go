package mux

import "time"

// StopSweeping has the sweeps of m come late by d, as in a process that has no CPU.
func (m *Mux) StopSweeping(d time.Duration) {
	m.first.mu.Lock()
	defer m.first.mu.Unlock()
	time.Sleep(d)
}
