package lease_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/readthrough-go/readthrough/internal/lease"
)

func TestACourseBeginsWithAnAcquire(t *testing.T) {
	require.Equal(t, lease.Course{Step: lease.Acquire, Audience: lease.BeforeLoad}, lease.Course{})
}

func TestACourseAloneLoadsAndAsksRedisNothing(t *testing.T) {
	c := lease.Alone()
	require.Equal(t, lease.Course{Step: lease.Load, Down: true}, c)
	c.OnLoad(true)
	require.Equal(t, lease.Course{Step: lease.Finish, Down: true, Audience: lease.BeforeLoad}, c)
}

func TestEachStepOfACourse(t *testing.T) {
	var (
		acquiring = lease.Course{Step: lease.Acquire}
		waiting   = lease.Course{Step: lease.Wait}
		loading   = lease.Course{Step: lease.Load}
		holding   = lease.Course{Step: lease.Load, Held: true}
		filling   = lease.Course{Step: lease.Fill, Held: true}
		releasing = lease.Course{Step: lease.Release, Held: true}
	)
	acquired := func(held, usable, failed bool) func(*lease.Course) {
		return func(c *lease.Course) { c.OnAcquire(held, usable, failed) }
	}
	waited := func(over bool) func(*lease.Course) { return func(c *lease.Course) { c.OnWait(over) } }
	loaded := func(storable bool) func(*lease.Course) { return func(c *lease.Course) { c.OnLoad(storable) } }
	settled := func(kept, failed bool) func(*lease.Course) {
		return func(c *lease.Course) { c.OnSettle(kept, failed) }
	}

	for name, row := range map[string]struct {
		from lease.Course
		on   func(*lease.Course)
		to   lease.Course
	}{
		"lease, no value: load": {
			acquiring, acquired(true, false, false), lease.Course{Step: lease.Load, Held: true},
		},
		"lease, value: use the value, and keep in mind that the lease is to be given back": {
			acquiring, acquired(true, true, false), lease.Course{Step: lease.Finish, Held: true, Audience: lease.BeforeSend},
		},
		"no lease, value: use it": {
			acquiring, acquired(false, true, false), lease.Course{Step: lease.Finish, Audience: lease.BeforeSend},
		},
		"no lease, no value: wait": {
			acquiring, acquired(false, false, false), lease.Course{Step: lease.Wait},
		},
		"Redis fails at the acquire: load, and ask it no more": {
			acquiring, acquired(false, false, true), lease.Course{Step: lease.Load, Down: true},
		},
		"whatever else is said of a failed acquire is not known": {
			acquiring, acquired(true, true, true), lease.Course{Step: lease.Load, Down: true},
		},

		"after a pause: acquire again":      {waiting, waited(false), lease.Course{Step: lease.Acquire}},
		"after too many: load all the same": {waiting, waited(true), lease.Course{Step: lease.Load}},

		"loaded with the lease: fill": {holding, loaded(true), lease.Course{Step: lease.Fill, Held: true}},
		"loaded nothing to store: release": {
			holding, loaded(false), lease.Course{Step: lease.Release, Held: true},
		},
		"loaded without a lease: store nothing": {
			loading, loaded(true), lease.Course{Step: lease.Finish, Audience: lease.BeforeLoad},
		},
		"loaded nothing to store without a lease": {
			loading, loaded(false), lease.Course{Step: lease.Finish, Audience: lease.BeforeLoad},
		},
		"loaded while Redis is down: it stays so": {
			lease.Course{Step: lease.Load, Down: true}, loaded(true), lease.Course{Step: lease.Finish, Down: true, Audience: lease.BeforeLoad},
		},

		"fill accepted: for all who joined before it was sent": {
			filling, settled(true, false), lease.Course{Step: lease.Finish, Audience: lease.BeforeSend},
		},
		"fill refused: for those who joined before the load": {
			filling, settled(false, false), lease.Course{Step: lease.Finish, Audience: lease.BeforeLoad},
		},
		"fill failed: for those who joined before the load, and the lease may be there": {
			filling, settled(false, true), lease.Course{Step: lease.Finish, Held: true, Down: true, Audience: lease.BeforeLoad},
		},
		"release of a lease that was held: for all who joined before it was sent": {
			releasing, settled(true, false), lease.Course{Step: lease.Finish, Audience: lease.BeforeSend},
		},
		"release of a lease that was gone: for those who joined before the load": {
			releasing, settled(false, false), lease.Course{Step: lease.Finish, Audience: lease.BeforeLoad},
		},
		"release failed: for those who joined before the load, and the lease may be there": {
			releasing, settled(false, true), lease.Course{Step: lease.Finish, Held: true, Down: true, Audience: lease.BeforeLoad},
		},
		"what went wrong before stays known after a fill": {
			lease.Course{Step: lease.Fill, Held: true, Down: true}, settled(true, false),
			lease.Course{Step: lease.Finish, Down: true, Audience: lease.BeforeSend},
		},
	} {
		t.Run(name, func(t *testing.T) {
			course := row.from
			row.on(&course)
			require.Equal(t, row.to, course)
		})
	}
}
