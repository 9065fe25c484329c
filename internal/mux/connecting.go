package mux

import (
	"context"
	"sync/atomic"

	"github.com/redis/go-redis/v9"
)

// connecting is a hook that sees how a new connection comes along: go-redis makes it within the
// round trip that needs it, by several commands of its own, each a round trip more. Each step is
// progress. So a far Redis gets its connection while the first caller waits, and one that hangs is
// given up a timeout after its last step. All other commands pass untouched.
type connecting struct{ role *atomic.Int32 }

// Role is what a server has said of itself when a connection to it was made.
type Role = int32

// The roles: unknown until there is a connection, or where Redis knows no HELLO.
const (
	UnknownRole Role = iota
	Primary
	Replica
)

// watchConnections has client tell its pipelines of the connections that it makes for them, and role
// of what they lead to. The hook remains on the client, and keeps nothing else of the Mux alive.
func watchConnections(client redis.UniversalClient, role *atomic.Int32) {
	hook := connecting{role}
	if cluster, ok := client.(interface{ OnNewNode(func(*redis.Client)) }); ok {
		cluster.OnNewNode(func(node *redis.Client) { node.AddHook(hook) })
		return
	}
	client.AddHook(hook)
}

// DialHook adds nothing: the first step that shows is that dialling has ended.
func (connecting) DialHook(redis.DialHook) redis.DialHook { return nil }

// ProcessHook notes the steps that are single commands.
func (c connecting) ProcessHook(next redis.ProcessHook) redis.ProcessHook {
	return func(ctx context.Context, cmd redis.Cmder) error {
		if !isStep(cmd) {
			return next(ctx, cmd)
		}
		noteStep(ctx)
		defer noteStep(ctx)
		err := next(ctx, cmd)
		if hello, ok := cmd.(*redis.MapStringInterfaceCmd); ok && err == nil {
			c.noteRole(hello.Val()["role"])
		}
		return err
	}
}

// noteRole notes what HELLO has answered.
func (c connecting) noteRole(role any) {
	switch role {
	case "master":
		c.role.Store(Primary)
	case "slave", "replica":
		c.role.Store(Replica)
	}
}

// ProcessPipelineHook notes the steps that are pipelines.
func (connecting) ProcessPipelineHook(next redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	return func(ctx context.Context, cmds []redis.Cmder) error {
		if len(cmds) > 0 && isStep(cmds[0]) {
			defer noteStep(ctx)
		}
		return next(ctx, cmds)
	}
}

// isStep reports whether cmd is one that go-redis sends on a new connection.
func isStep(cmd redis.Cmder) bool {
	name, _ := cmd.Args()[0].(string)
	switch name {
	case "hello", "auth", "select", "readonly", "client":
		return true
	}
	return false
}

// pipelineKey is the key of the pipeline in the context of its round trip.
type pipelineKey struct{}

// noteStep notes progress of the pipeline for which a connection is being made.
func noteStep(ctx context.Context) {
	if p, ok := ctx.Value(pipelineKey{}).(*pipeline); ok {
		p.arrive()
	}
}
