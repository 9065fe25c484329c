package readthroughtest_test

// Tests as a user of the library writes them: of a service that reads users through the cache.

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/readthrough-go/readthrough"
	"github.com/readthrough-go/readthrough/readthroughtest"
)

// userService is the code under test.
type userService struct {
	db    *table
	users *readthrough.ReadThrough[int, string]

	forgetful bool // a bug, to see that the tests find it
}

func newUserService(cache *readthrough.Cache, db *table) *userService {
	return &userService{db: db, users: readthrough.Must(readthrough.New(cache, "user", db.find, readthrough.Int,
		readthrough.WithTTL(time.Minute), readthrough.WithStale(time.Hour)))}
}

func (s *userService) Name(ctx context.Context, id int) (string, error) { return s.users.Get(ctx, id) }

func (s *userService) Rename(ctx context.Context, id int, name string) error {
	s.db.set(id, name)
	if s.forgetful && name == "Grace" {
		return nil
	}
	return s.users.Invalidate(ctx, id)
}

// TestUserService is a table test: each row has a Cache of its own, so that all run in parallel.
func TestUserService(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		do    func(ctx context.Context, s *userService, fake *readthroughtest.Fake) error
		want  string
		loads int64
	}{
		"a second read is a hit": {func(context.Context, *userService, *readthroughtest.Fake) error { return nil }, "Ada", 1},
		"a rename is seen at once": {func(ctx context.Context, s *userService, _ *readthroughtest.Fake) error {
			return s.Rename(ctx, 1, "Barbara")
		}, "Barbara", 2},
		"a read after the stale window loads": {func(_ context.Context, _ *userService, fake *readthroughtest.Fake) error {
			fake.FastForward(time.Minute + time.Hour)
			return nil
		}, "Ada", 2},
		"an outage of Redis goes unnoticed": {func(_ context.Context, _ *userService, fake *readthroughtest.Fake) error {
			fake.Down()
			return nil
		}, "Ada", 2},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			fake, db := readthroughtest.New(t), newTable(map[int]string{1: "Ada"})
			service := newUserService(fake.Cache, db)
			readthroughtest.Audit(service.users, db.find)

			_, err := service.Name(t.Context(), 1)
			require.NoError(t, err)
			require.NoError(t, c.do(t.Context(), service, fake))
			got, err := service.Name(t.Context(), 1)
			require.NoError(t, err)
			require.Equal(t, c.want, got)
			require.Equal(t, c.loads, service.users.Stats().Loads)
		})
	}
}

// fuzzUserService makes of script reads, writes and jumps in time: the audit says whether a read was
// answered with what is no longer so. Nothing else need be known of what should come out.
func fuzzUserService(t testing.TB, script []byte, forgetful bool) {
	fake, db := readthroughtest.New(t), newTable(map[int]string{0: "Ada", 1: "Barbara"})
	service := newUserService(fake.Cache, db)
	service.forgetful = forgetful
	readthroughtest.Audit(service.users, db.find)
	for _, b := range script {
		id, name := int(b&1), []string{"Ada", "Barbara", "Grace", "Katherine"}[b>>1&3]
		var err error
		switch b >> 3 & 3 {
		case 0, 1:
			_, err = service.Name(context.Background(), id)
		case 2:
			err = service.Rename(context.Background(), id, name)
		case 3:
			fake.FastForward(time.Duration(b>>5) * 10 * time.Second)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
}

func FuzzUserService(f *testing.F) {
	f.Add([]byte{0, 0, 2<<3 | 2<<1, 0})
	f.Add([]byte{1, 0, 3<<3 | 5<<5, 1, 2<<3 | 1, 1, 3<<3 | 7<<5, 0})
	f.Fuzz(func(t *testing.T, script []byte) { fuzzUserService(t, script, false) })
}

// TestFuzzUserService_FindsBug holds that the audit of the fuzz test finds a forgotten Invalidate.
func TestFuzzUserService_FindsBug(t *testing.T) {
	t.Parallel()
	w := &watched{}
	t.Run("forgetful", func(t *testing.T) {
		w.TB = t
		fuzzUserService(w, []byte{0, 0, 2<<3 | 2<<1, 0}, true)
	})
	require.Len(t, w.said(), 1)
	require.Contains(t, w.said()[0], "user:0 is served from the cache as Ada, and a direct load returns Grace")
}

// TestUserService_ServesStaleWhileDatabaseIsDown has its time from testing/synctest: it sleeps for
// hours that pass at once, and what runs in the background has come to rest after synctest.Wait.
func TestUserService_ServesStaleWhileDatabaseIsDown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fake, db := readthroughtest.New(t), newTable(map[int]string{1: "Ada"})
		service := newUserService(fake.Cache, db)
		_, err := service.Name(t.Context(), 1)
		require.NoError(t, err)

		db.fail(errDown)
		for range 60 {
			time.Sleep(time.Minute)
			name, err := service.Name(t.Context(), 1)
			require.NoError(t, err)
			require.Equal(t, "Ada", name)
		}
		synctest.Wait()
		time.Sleep(time.Minute)
		_, err = service.Name(t.Context(), 1)
		require.True(t, errors.Is(err, errDown), "an hour is enough")
	})
}
