package lease_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/readthrough-go/readthrough/internal/lease"
)

func TestProtocol_BeginsWithAcquire(t *testing.T) {
	require.Equal(t, lease.Protocol{Step: lease.Acquire, Audience: lease.BeforeLoad}, lease.Protocol{})
}

func TestProtocol_AloneAsksRedisNothing(t *testing.T) {
	p := lease.Alone()
	require.Equal(t, lease.Protocol{Step: lease.Load, Down: true}, p)
	p.OnLoad(true)
	require.Equal(t, lease.Protocol{Step: lease.Finish, Down: true, Audience: lease.BeforeLoad}, p)
	require.False(t, p.OnFinish(), "there is no lease to give back")
}

func TestProtocol_TakesEachStep(t *testing.T) {
	var (
		acquiring = lease.Protocol{Step: lease.Acquire}
		waiting   = lease.Protocol{Step: lease.Wait}
		loading   = lease.Protocol{Step: lease.Load}
		holding   = lease.Protocol{Step: lease.Load, Held: true}
		filling   = lease.Protocol{Step: lease.Fill, Held: true}
		releasing = lease.Protocol{Step: lease.Release, Held: true}
	)
	acquired := func(held, usable, inVain, failed bool) func(*lease.Protocol) {
		return func(p *lease.Protocol) { p.OnAcquire(held, usable, inVain, failed) }
	}
	waited := func(over bool) func(*lease.Protocol) { return func(p *lease.Protocol) { p.OnWait(over) } }
	loaded := func(storable bool) func(*lease.Protocol) { return func(p *lease.Protocol) { p.OnLoad(storable) } }
	renewed := func(failed bool) func(*lease.Protocol) { return func(p *lease.Protocol) { p.OnRenew(failed) } }
	settled := func(kept, failed bool) func(*lease.Protocol) {
		return func(p *lease.Protocol) { p.OnSettle(kept, failed) }
	}

	written := func(held bool) func(*lease.Protocol) { return func(p *lease.Protocol) { p.OnWritten(held) } }

	for name, row := range map[string]struct {
		from lease.Protocol
		on   func(*lease.Protocol)
		to   lease.Protocol
	}{
		"lease, under a write: load, and keep in mind that the lease is to be given back": {
			acquiring, written(true), lease.Protocol{Asked: true, Step: lease.Load, Held: true, Written: true},
		},
		"no lease, under a write: load": {
			acquiring, written(false), lease.Protocol{Asked: true, Step: lease.Load, Written: true},
		},
		"a refresh in the background, under a write: leave it": {
			lease.Protocol{Yields: true}, written(true), lease.Protocol{Yields: true, Asked: true, Step: lease.Finish, Held: true, Written: true, Audience: lease.Nobody},
		},
		"loaded under a write: store nothing": {
			lease.Protocol{Step: lease.Load, Held: true, Written: true}, loaded(true),
			lease.Protocol{Step: lease.Finish, Held: true, Written: true, Audience: lease.BeforeLoad},
		},
		"lease, no value: load": {
			acquiring, acquired(true, false, false, false), lease.Protocol{Asked: true, Step: lease.Load, Held: true},
		},
		"lease, value: use the value, and keep in mind that the lease is to be given back": {
			acquiring, acquired(true, true, false, false), lease.Protocol{Asked: true, Step: lease.Finish, Held: true, Audience: lease.BeforeSend},
		},
		"no lease, value: use it": {
			acquiring, acquired(false, true, false, false), lease.Protocol{Asked: true, Step: lease.Finish, Audience: lease.BeforeSend},
		},
		"no lease, no value: wait": {
			acquiring, acquired(false, false, false, false), lease.Protocol{Asked: true, Step: lease.Wait},
		},
		"no lease, no value, and the load that was waited for has brought none: load without the lease": {
			acquiring, acquired(false, false, true, false), lease.Protocol{Asked: true, Step: lease.Load},
		},
		"the lease, after such a load: load": {
			acquiring, acquired(true, false, true, false), lease.Protocol{Asked: true, Step: lease.Load, Held: true},
		},
		"a value, after such a load: use it": {
			acquiring, acquired(false, true, true, false), lease.Protocol{Asked: true, Step: lease.Finish, Audience: lease.BeforeSend},
		},
		"Redis fails at the acquire: load, and ask it no more": {
			acquiring, acquired(false, false, false, true), lease.Protocol{Asked: true, Step: lease.Load, Down: true},
		},
		"whatever else is said of a failed acquire is not known": {
			acquiring, acquired(true, true, false, true), lease.Protocol{Asked: true, Step: lease.Load, Down: true},
		},

		"no lease, no value, and another process may as well load: leave it to that": {
			lease.Protocol{Yields: true}, acquired(false, false, false, false),
			lease.Protocol{Step: lease.Finish, Yields: true, Asked: true, Audience: lease.Nobody},
		},

		"after a pause during which all callers have gone: nothing": {
			waiting, (*lease.Protocol).OnAbandon, lease.Protocol{Step: lease.Finish, Audience: lease.Nobody},
		},
		"a renewal failed: ask Redis no more": {
			holding, renewed(true), lease.Protocol{Step: lease.Load, Held: true, Down: true},
		},
		"renewed": {holding, renewed(false), holding},
		"loaded with a lease whose renewal failed: store nothing": {
			lease.Protocol{Step: lease.Load, Held: true, Down: true}, loaded(true),
			lease.Protocol{Step: lease.Finish, Held: true, Down: true, Audience: lease.BeforeLoad},
		},

		"after a pause: acquire again":      {waiting, waited(false), lease.Protocol{Step: lease.Acquire}},
		"after too many: load all the same": {waiting, waited(true), lease.Protocol{Step: lease.Load}},

		"loaded with the lease: fill": {holding, loaded(true), lease.Protocol{Step: lease.Fill, Held: true}},
		"loaded nothing to store: release": {
			holding, loaded(false), lease.Protocol{Step: lease.Release, Held: true},
		},
		"loaded without a lease: store nothing": {
			loading, loaded(true), lease.Protocol{Step: lease.Finish, Audience: lease.BeforeLoad},
		},
		"loaded nothing to store without a lease": {
			loading, loaded(false), lease.Protocol{Step: lease.Finish, Audience: lease.BeforeLoad},
		},
		"loaded while Redis is down: it stays so": {
			lease.Protocol{Step: lease.Load, Down: true}, loaded(true), lease.Protocol{Step: lease.Finish, Down: true, Audience: lease.BeforeLoad},
		},

		"fill accepted: for all who joined before it was sent": {
			filling, settled(true, false), lease.Protocol{Step: lease.Finish, Audience: lease.BeforeSend},
		},
		"fill refused: for those who joined before the load": {
			filling, settled(false, false), lease.Protocol{Step: lease.Finish, Audience: lease.BeforeLoad},
		},
		"fill failed: for those who joined before the load, and the lease may be there": {
			filling, settled(false, true), lease.Protocol{Step: lease.Finish, Held: true, Down: true, Audience: lease.BeforeLoad},
		},
		"release of a lease that was held: for all who joined before it was sent": {
			releasing, settled(true, false), lease.Protocol{Step: lease.Finish, Audience: lease.BeforeSend},
		},
		"release of a lease that was gone: for those who joined before the load": {
			releasing, settled(false, false), lease.Protocol{Step: lease.Finish, Audience: lease.BeforeLoad},
		},
		"release failed: for those who joined before the load, and the lease may be there": {
			releasing, settled(false, true), lease.Protocol{Step: lease.Finish, Held: true, Down: true, Audience: lease.BeforeLoad},
		},
		"what went wrong before stays known after a fill": {
			lease.Protocol{Step: lease.Fill, Held: true, Down: true}, settled(true, false),
			lease.Protocol{Step: lease.Finish, Down: true, Audience: lease.BeforeSend},
		},
	} {
		t.Run(name, func(t *testing.T) {
			p := row.from
			row.on(&p)
			require.Equal(t, row.to, p)
		})
	}
}

func TestProtocol_LoadsAloneWhereRedisRefusesLeases(t *testing.T) {
	waited := lease.Protocol{Step: lease.Acquire, Asked: true}
	waited.OnRefused()
	require.Equal(t, lease.Alone(), waited)

	refresh := lease.Protocol{Yields: true}
	refresh.OnRefused()
	require.Equal(t, lease.Protocol{Step: lease.Finish, Down: true, Audience: lease.Nobody}, refresh, "what cannot be stored is loaded for nobody")
	require.False(t, refresh.OnFinish())
}

func TestProtocol_GivesBackWhatMayBeItsLease(t *testing.T) {
	for name, row := range map[string]struct {
		p    lease.Protocol
		owed bool
	}{
		"lease that came with an entry": {lease.Protocol{Step: lease.Finish, Asked: true, Held: true}, true},
		"answer that was lost":          {lease.Protocol{Step: lease.Finish, Asked: true, Down: true}, true},
		"Redis was not asked":           {lease.Protocol{Step: lease.Finish, Down: true}, false},
		"lease that was given back":     {lease.Protocol{Step: lease.Finish, Asked: true}, false},
	} {
		t.Run(name, func(t *testing.T) {
			require.Equal(t, row.owed, row.p.OnFinish())
			require.Equal(t, lease.Done, row.p.Step)
		})
	}
}

func TestProtocol_SuccessorAsksADeadRedisNoMore(t *testing.T) {
	down, up := lease.Protocol{Down: true, Asked: true}, lease.Protocol{Asked: true, Steal: true, Yields: true}
	require.Equal(t, lease.Alone(), down.Successor())
	require.Equal(t, lease.Protocol{}, up.Successor())
}

func TestSharedBefore_IsTheJoinRule(t *testing.T) {
	const began, sent = 3, 7
	require.Equal(t, began, lease.SharedBefore(lease.BeforeLoad, began, sent))
	require.Equal(t, sent, lease.SharedBefore(lease.BeforeSend, began, sent))
	require.Zero(t, lease.SharedBefore(lease.Nobody, began, sent))
}
