package redistest

import (
	"context"
	"sync/atomic"

	"github.com/redis/go-redis/v9"
)

// TripCounter is a hook that counts the round trips of a client: commands on their
// own, and pipelines but for those that open a connection. ROLE, which a Cache sends once in
// the background, does not count.
type TripCounter struct{ Trips *atomic.Int64 }

// DialHook leaves dialling alone.
func (c *TripCounter) DialHook(next redis.DialHook) redis.DialHook { return next }

// ProcessHook counts a command on its own.
func (c *TripCounter) ProcessHook(next redis.ProcessHook) redis.ProcessHook {
	return func(ctx context.Context, cmd redis.Cmder) error {
		if name := cmd.Name(); name != "role" && name != "hello" {
			c.Trips.Add(1)
		}
		return next(ctx, cmd)
	}
}

// ProcessPipelineHook counts a pipeline.
func (c *TripCounter) ProcessPipelineHook(next redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	return func(ctx context.Context, cmds []redis.Cmder) error {
		if len(cmds) > 0 && cmds[0].Name() != "hello" && cmds[0].Name() != "client" {
			c.Trips.Add(1)
		}
		return next(ctx, cmds)
	}
}
