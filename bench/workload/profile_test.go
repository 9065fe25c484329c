package workload

import (
	"testing"

	"github.com/stretchr/testify/assert"
)

func TestStackBelongsToItsInnermostPackageUnlessTheRuntimeWorks(t *testing.T) {
	const (
		mux     = "github.com/readthrough-go/readthrough/internal/mux.(*Mux).Get"
		decode  = "github.com/vmihailenco/msgpack/v5.(*Decoder).Decode"
		wrapper = "github.com/readthrough-go/readthrough.(*ReadThrough[...]).Get"
		process = "github.com/redis/go-redis/v9.(*Client).Process"
	)
	for want, stacks := range map[string][][]string{
		"msgpack":                                  {{"runtime.memmove", decode, wrapper}, {"reflect.Value.Set", decode, wrapper}},
		"go-redis":                                 {{process, mux, wrapper}},
		"readthrough: mux":                         {{"sync.(*Mutex).Lock", mux, wrapper}},
		"readthrough: the rest":                    {{"time.Now", wrapper}, {"github.com/readthrough-go/readthrough/internal/flight.(*Group[...]).Join", wrapper}},
		"readthrough: check of the bytes":          {{"github.com/readthrough-go/readthrough/internal/wire/wellformed.Check", wrapper}},
		"allocation and garbage collection":        {{"runtime.nextFreeFast", "runtime.mallocgc", "runtime.newobject", decode, wrapper}, {"runtime.scanobject", "runtime.gcBgMarkWorker"}},
		"scheduler: parking and waking goroutines": {{"runtime.futex", "runtime.findRunnable", "runtime.schedule", "runtime.park_m", "runtime.mcall"}, {"runtime.lock2", "runtime.chansend", mux}},
		"system calls, network":                    {{"syscall.RawSyscall6", "internal/poll.(*FD).Read", process}, {"internal/runtime/syscall.Syscall6", "syscall.write", "internal/poll.(*FD).Write", process}, {"runtime.netpoll", "runtime.findRunnable", "runtime.schedule"}},
		others:                                     {{"runtime.main"}, nil},
	} {
		for _, stack := range stacks {
			assert.Equal(t, want, groupOf(stack), "%v", stack)
		}
	}
}
