package readthrough_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/readthrough-go/readthrough"
)

// name is a key in which its owner can change things, and that cannot be copied.
type name struct {
	mu   sync.Mutex
	text string
}

func newName(text string) *name { return &name{text: text} }

func (n *name) String() string {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.text
}

func (n *name) set(text string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.text = text
}

// names is the loaders of a wrapper of names: each name's value is its text in its version.
type names struct {
	mu      sync.Mutex
	version string
	takes   time.Duration
	asked   []string
	meddles bool // changes the keys that it is given
}

func (s *names) load(_ context.Context, n *name) (string, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.asked = append(s.asked, n.String())
	if s.meddles {
		defer func() { n.set(n.String() + ", as it was loaded") }()
	}
	if s.takes > 0 {
		s.mu.Unlock()
		time.Sleep(s.takes)
		s.mu.Lock()
	}
	return n.String() + s.version, nil // as it is by now
}

func (s *names) loadMany(ctx context.Context, ns []*name) (map[*name]string, error) {
	values := make(map[*name]string)
	for _, n := range ns {
		values[n], _ = s.load(ctx, n)
	}
	return values, nil
}

func (s *names) askedFor() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.asked
}

func (s *names) change(version string, takes time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.version, s.takes, s.asked = version, takes, nil
}

type nameCache = readthrough.ReadThrough[*name, string]

func (s *names) wrap(t *testing.T, b *bubble, opts ...readthrough.Option) *nameCache {
	t.Helper()
	return readthrough.Must(readthrough.New(b.cache(t), "name", s.load, (*name).String, opts...))
}

// requireNames wants each name to be what it is, in Redis and from the loader.
func (s *names) requireNames(t *testing.T, rt *nameCache, texts ...string) {
	t.Helper()
	s.change(" later", 0)
	for range 2 {
		for _, text := range texts {
			v, err := rt.Get(t.Context(), newName(text))
			require.NoError(t, err)
			require.Equal(t, text, v[:len(text)])
		}
		pass(time.Minute) // refreshes
	}
}

func goGet(ctx context.Context, get func(context.Context, *name) (string, error), n *name) <-chan outcome {
	got := make(chan outcome, 1)
	go func() { got <- outcomeOf(func() (string, error) { return get(ctx, n) }) }()
	synctest.Wait()
	return got
}

func TestRefresh_InBackgroundLoadsNoKeyThatItsOwnerHasChanged(t *testing.T) {
	for how, opts := range map[string][]readthrough.Option{
		"in the queue":    {readthrough.WithLoadLimit(1)},
		"during its load": nil,
	} {
		t.Run(how, func(t *testing.T) {
			inBubble(t, func(t *testing.T, b *bubble) {
				s := &names{}
				rt := s.wrap(t, b, opts...)
				s.requireNames(t, rt, "a", "b")
				s.change(" new", time.Second)
				other := goGet(t.Context(), rt.Get, newName("other"))
				n := newName("a")
				v, err := rt.Get(t.Context(), n)
				require.NoError(t, err)
				require.Equal(t, "a later", v)
				synctest.Wait()
				n.set("b")
				require.Equal(t, outcome{value: "other new"}, <-other)
				pass(10 * time.Second)
				require.NotContains(t, s.askedFor(), "b")
				require.EqualValues(t, 1, rt.Stats().Unstorable, "said")
				require.Zero(t, rt.Stats().LoadErrors, "no fault of the loader's")
				s.requireNames(t, rt, "a", "b")
			})
		})
	}
}

func TestGet_GetsItsOwnKeyWhenAnotherCallerHasChangedTheirs(t *testing.T) {
	for how, opts := range map[string][]readthrough.Option{
		"in the queue":    {readthrough.WithLoadLimit(1)},
		"in the window":   {readthrough.WithGather(2*time.Second, 10), readthrough.WithBatchLoader((&names{takes: time.Second}).loadMany)},
		"during its load": nil,
	} {
		for read, get := range map[string]func(*nameCache) func(context.Context, *name) (string, error){
			"Get":     func(rt *nameCache) func(context.Context, *name) (string, error) { return rt.Get },
			"Refresh": func(rt *nameCache) func(context.Context, *name) (string, error) { return rt.Refresh },
			"GetMany": func(rt *nameCache) func(context.Context, *name) (string, error) {
				return func(ctx context.Context, n *name) (string, error) {
					results, err := rt.GetMany(ctx, []*name{n})
					if err != nil {
						return "", err
					}
					return results[0].Value, results[0].Err
				}
			},
		} {
			t.Run(read+" "+how, func(t *testing.T) {
				inBubble(t, func(t *testing.T, b *bubble) {
					s := &names{takes: time.Second}
					rt := s.wrap(t, b, opts...)
					get := get(rt)
					other := goGet(t.Context(), get, newName("other"))
					ctx, cancel := context.WithCancel(t.Context())
					n := newName("a")
					leaver := goGet(ctx, get, n)
					stayer := goGet(t.Context(), get, newName("a"))
					cancel()
					require.ErrorIs(t, (<-leaver).err, context.Canceled)
					n.set("b")
					require.Equal(t, outcome{value: "other"}, <-other)
					require.Equal(t, outcome{value: "a"}, <-stayer)
					s.requireNames(t, rt, "a", "b")
				})
			})
		}
	}
}

func TestGetMany_RefreshesKeysThatNobodyHasChanged(t *testing.T) {
	inBubble(t, func(t *testing.T, b *bubble) {
		s := &names{}
		rt := s.wrap(t, b, readthrough.WithBatchLoader(s.loadMany), readthrough.WithLoadLimit(1))
		s.requireNames(t, rt, "a", "b", "c")
		s.change(" new", time.Second)
		other := goGet(t.Context(), rt.Get, newName("other"))
		ns := []*name{newName("a"), newName("c")}
		_, err := rt.GetMany(t.Context(), ns)
		require.NoError(t, err)
		synctest.Wait()
		ns[0].set("b")
		<-other
		pass(2 * time.Second)
		require.Equal(t, []string{"other", "c"}, s.askedFor())
		v, err := rt.Peek(t.Context(), newName("c"))
		require.NoError(t, err)
		require.Equal(t, "c new", v)
		s.requireNames(t, rt, "a", "b", "c")
	})
}

// A loader that changes its own key still answers its caller. Its values are not stored, for nobody
// knows which key they belong to.
func TestGet_ReturnsButDoesNotStoreWhatComesWithChangedKey(t *testing.T) {
	inBubble(t, func(t *testing.T, b *bubble) {
		s := &names{meddles: true}
		rt := s.wrap(t, b)
		for range 2 {
			v, info, err := rt.GetInfo(t.Context(), newName("a"))
			require.NoError(t, err)
			require.Equal(t, "a", v)
			require.Equal(t, readthrough.Info{Source: readthrough.SourceLoaded}, info)
		}
		require.EqualValues(t, 2, rt.Stats().Unstorable)
		require.Empty(t, b.redis.Keys())
	})
}

func TestGet_FailsForKeyThatItsOwnCallerHasChanged(t *testing.T) {
	inBubble(t, func(t *testing.T, b *bubble) {
		s := &names{takes: time.Second}
		rt := readthrough.Must(readthrough.New(b.cache(t), "name", s.load, func(n *name) string {
			if n.String() == "" {
				panic("no name")
			}
			return n.String()
		}, readthrough.WithLoadLimit(1)))
		other := goGet(t.Context(), rt.Get, newName("other"))
		n := newName("a")
		got := goGet(t.Context(), rt.Get, n)
		n.set("") // and cannot even be asked for
		<-other
		o := <-got
		require.ErrorContains(t, o.err, "load name:a: the key was changed")
		require.Nil(t, o.panicked)
		require.Zero(t, rt.Stats().LoadErrors)
		require.False(t, errors.Is(o.err, readthrough.ErrEmptyKey))
	})
}

// shop is a key with much in it that its owner can change, and that can be copied.
type shop struct {
	Name  string
	Parts [][]string
	Last  *[2]*int
	since time.Time
}

// The race detector sees whether a load has a key of its own.
func TestRefresh_InBackgroundHasKeyOfItsOwn(t *testing.T) {
	t.Run("bytes", func(t *testing.T) {
		requireOwnKey(t, func() []byte { return []byte("ab") }, func(k []byte) { k[0], k[1] = 'x', 'y' })
	})
	t.Run("array of slices", func(t *testing.T) {
		requireOwnKey(t, func() [1][]int { return [1][]int{{1}} }, func(k [1][]int) { k[0][0] = 2 })
	})
	t.Run("pointer", func(t *testing.T) {
		requireOwnKey(t, func() *shop {
			return &shop{"a", [][]string{{"b"}, nil}, &[2]*int{new(int)}, time.Unix(1, 0)}
		}, func(k *shop) {
			k.Parts[0][0], *k.Last[0], k.since = "x", 3, time.Time{}
			k.Last[1], k.Parts[1] = new(int), []string{}
			k.Name, k.Parts, k.Last = "y", nil, nil
		})
	})
}

// requireOwnKey has a key changed as soon as a call is over whose refresh goes on.
func requireOwnKey[K any](t *testing.T, newKey func() K, change func(K)) {
	t.Helper()
	text := func(k K) string {
		b, err := json.Marshal(k)
		return fmt.Sprint(string(b), err)
	}
	inBubble(t, func(t *testing.T, b *bubble) {
		var changed atomic.Bool
		rt := readthrough.Must(readthrough.New(b.cache(t), "k", func(_ context.Context, k K) (string, error) {
			if changed.Load() {
				time.Sleep(time.Second)
			}
			return text(k), nil
		}, text, readthrough.WithTTL(time.Second)))
		want := text(newKey())
		v, err := rt.Get(t.Context(), newKey())
		require.NoError(t, err)
		require.Equal(t, want, v)
		pass(2 * time.Second)
		changed.Store(true)
		k := newKey()
		v, err = rt.Get(t.Context(), k)
		require.NoError(t, err)
		require.Equal(t, want, v, "stale")
		change(k)
		require.NotEqual(t, want, text(k))
		pass(time.Second)
		v, info, err := rt.GetInfo(t.Context(), newKey())
		require.NoError(t, err)
		require.Equal(t, want, v)
		require.Equal(t, readthrough.SourceHit, info.Source, "it was refreshed")
		require.Zero(t, rt.Stats().Unstorable)
	})
}
