package migrate_test

import (
	"context"
	"database/sql"
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/readthrough-go/readthrough"
	after "github.com/readthrough-go/readthrough/examples/migrate/after"
	before "github.com/readthrough-go/readthrough/examples/migrate/before"
	between "github.com/readthrough-go/readthrough/examples/migrate/between"
	"github.com/readthrough-go/readthrough/examples/migrate/store"
	"github.com/readthrough-go/readthrough/readthroughtest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// service is what the three releases have in common.
type service interface {
	Find(ctx context.Context, id int64) (store.User, error)
	Save(ctx context.Context, user store.User) error
}

// fleet is one process of each release on one Redis and one database.
type fleet struct {
	repo                   *store.Repo
	before, between, after service
	caches                 []*readthrough.Cache // of between and after
}

func newFleet(t *testing.T) *fleet {
	t.Helper()
	fake := readthroughtest.New(t)
	other, err := readthrough.NewCache(fake.Client)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, other.Close()) })
	f := &fleet{repo: new(store.Repo), caches: []*readthrough.Cache{other, fake.Cache}}
	f.before = readthrough.Must(before.New(f.repo, fake.Client))
	f.between = readthrough.Must(between.New(f.repo, fake.Client, other))
	f.after = readthrough.Must(after.New(f.repo, fake.Client, fake.Cache))
	return f
}

// runTogether has processes read and write users in a random order, and holds each read to what was
// written last. It returns how many reads were stale.
func runTogether(t *testing.T, f *fleet, processes ...service) (staleReads int) {
	t.Helper()
	random := rand.New(rand.NewPCG(1, 2))
	names := make(map[int64]string)
	for i := range 2000 {
		process, id := processes[random.IntN(len(processes))], random.Int64N(5)
		if random.IntN(4) == 0 {
			names[id] = fmt.Sprint("name ", i)
			require.NoError(t, process.Save(t.Context(), store.User{ID: id, Name: names[id]}))
			continue
		}
		user, err := process.Find(t.Context(), id)
		if names[id] == "" {
			require.ErrorIs(t, err, sql.ErrNoRows)
			continue
		}
		require.NoError(t, err)
		if user.Name != names[id] {
			staleReads++
		}
	}
	require.Less(t, f.repo.Finds(), 1200, "the caches were of use")
	for _, c := range f.caches {
		require.Zero(t, c.Stats().Corrupt, "nothing was misread")
	}
	return staleReads
}

func TestReleases_RunSideBySide(t *testing.T) {
	t.Parallel()
	for name, pick := range map[string]func(*fleet) []service{
		"first rollout":  func(f *fleet) []service { return []service{f.before, f.between} },
		"second rollout": func(f *fleet) []service { return []service{f.between, f.after} },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := newFleet(t)
			require.Zero(t, runTogether(t, f, pick(f)...))
		})
	}
}

// TestReleases_NeedTheOneBetween holds that the first release is there for a reason: what processes
// that do not know the new keys write, the new ones do not see.
func TestReleases_NeedTheOneBetween(t *testing.T) {
	t.Parallel()
	f := newFleet(t)
	require.NotZero(t, runTogether(t, f, f.before, f.after))
}

func TestAfter_BeginsWarm(t *testing.T) {
	t.Parallel()
	f := newFleet(t)
	for id := range int64(100) {
		require.NoError(t, f.before.Save(t.Context(), store.User{ID: id, Name: fmt.Sprint("user ", id)}))
		_, err := f.before.Find(t.Context(), id)
		require.NoError(t, err)
	}
	finds := f.repo.Finds()
	for id := range int64(100) {
		user, err := f.after.Find(t.Context(), id)
		require.NoError(t, err)
		require.Equal(t, fmt.Sprint("user ", id), user.Name)
	}
	require.Equal(t, finds, f.repo.Finds(), "nothing was loaded from the database")
}
